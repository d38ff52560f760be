package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// everyInterpreter returns the supported versions of Node.js on this machine: in the path, and
// those that make nodes installs.
func everyInterpreter(t *testing.T) (paths []string) {
	t.Helper()
	needNode(t)
	found, err := filepath.Glob("testdata/versions/*/node_modules/node-*/bin/node")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 && os.Getenv("CI") == "true" {
		t.Error("there are no other versions of Node.js; install them with: make nodes")
	}
	var versions []string
	for _, path := range append([]string{""}, found...) {
		if path != "" {
			if path, err = filepath.Abs(path); err != nil {
				t.Fatal(err)
			}
		}
		i, err := FindInterpreter(t.Context(), path, os.LookupEnv)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		paths, versions = append(paths, i.Path), append(versions, i.Version)
	}
	t.Log("this machine has Node.js " + strings.Join(versions, ", "))
	return paths
}

// Behavior that depends on the version of Node.js: modules of all kinds and where drover is found,
// AsyncLocalStorage, uncaught errors, and the end of the process.
func TestEveryNodeOfThisMachine(t *testing.T) {
	t.Parallel()
	for _, path := range everyInterpreter(t) {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			log := new(lines)
			p := startApp(t, files{
				"index.js": `
const { Reject } = require('drover');
const { Worker } = require('node:worker_threads');
exports.echo = (message) => message.body;
exports.reject = () => { throw new Reject('no'); };
exports.speak = async () => { console.log('a line'); await null; console.warn('a warning %o', { a: 1 }); process.stdout.write('raw\n'); };
exports.fails = () => { throw new Error('outer', { cause: new AggregateError([new TypeError('first')], 'many') }); };
exports.timer = async () => { setTimeout(() => { throw new Error('in a timer'); }, 1); await new Promise(() => {}); };
exports.rejection = async () => { Promise.reject(new Error('not handled')); await new Promise(() => {}); };
exports.hangs = async (message, context) => { console.log('hanging'); await require('node:timers/promises').setTimeout(600000, null, { signal: context.signal }); };
exports.thread = () => new Promise((resolve, reject) => { new Worker('require("node:worker_threads").parentPort.postMessage("from a thread")', { eval: true }).on('message', resolve).on('error', reject); });
exports.exits = () => process.exit(17);
exports.aborts = () => process.abort();
`,
				"node_modules/drover/package.json":                   `{"name": "drover-functions", "main": "./worker/modules/drover/index.js"}`,
				"node_modules/drover/worker/modules/drover/index.js": "exports.packed = true;\n",
				"module.mjs": "import { Reject } from 'drover';\nimport fs from 'node:fs';\nawait new Promise((resolve) => setTimeout(resolve, 1));\nexport const top = async () => Reject.name + typeof fs.readFileSync;\nexport default async () => 'by default';\n",
			}, func(c *workers.Config) {
				c.Command.Path, c.Log = path, slog.New(slog.NewTextHandler(log, nil))
			}, "echo", "reject", "speak", "fails", "timer", "rejection", "hangs", "thread", "exits", "aborts", "module.mjs:top", "module.mjs:default")
			for f, want := range map[string]string{
				"echo": "body", "speak": "", "thread": "from a thread", "module.mjs:top": "Rejectfunction", "module.mjs:default": "by default",
				"reject": "!no", "fails": "!Error: outer\nAggregateError: many\nerror 1 of 1: TypeError: first", "timer": "!Error: in a timer", "rejection": "!Error: not handled",
				"exits": "!exit status 17", "aborts": "!SIGABRT",
			} {
				got, err := call(t, p, f, &triggers.Message{ID: "m", Body: []byte("body")})
				wants, fails := strings.CutPrefix(want, "!")
				if !fails {
					if err != nil || string(got) != want {
						t.Errorf("%s: %s, %v; want %s", f, got, err, want)
					}
					continue
				}
				text := fmt.Sprint(err)
				var failure *handlers.Failure
				if errors.As(err, &failure) {
					text += "\n" + failure.Detail
				}
				for _, part := range strings.Split(wants, "\n") {
					if !strings.Contains(text, part) {
						t.Errorf("%s: %q is not in %s", f, part, text)
					}
				}
			}
			log.wait(t, `msg="a line"`, "function=speak")
			log.wait(t, "level=WARN", "a warning { a: 1 }", "function=speak")
			log.wait(t, "msg=raw", "function=speak")
			ctx, cancel := context.WithCancel(soon(t))
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := handle(ctx, t, p, "hangs", &triggers.Message{})
				ended <- err
			}()
			log.wait(t, "msg=hanging")
			cancel()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("a call that was cancelled did not fail")
				}
			case <-time.After(patience):
				t.Error("a call that was cancelled did not end")
			}
		})
	}
}

// TypeScript runs if node strips its types.
func TestTypeScriptWhereNodeHasIt(t *testing.T) {
	t.Parallel()
	ran := 0
	for _, path := range everyInterpreter(t) {
		p := newApp(t, files{"index.ts": "type M = { text(): string };\nexport const f = async (message: M): Promise<string> => message.text() + '!';\n"},
			func(c *workers.Config) {
				c.Command.Path = path
				c.Functions[0].Module = "index"
			}, "f")
		if err := p.WaitReady(soon(t)); err != nil {
			continue // before 22.18
		}
		ran++
		if got, err := call(t, p, "f", &triggers.Message{Body: []byte("typed")}); err != nil || string(got) != "typed!" {
			t.Errorf("%s: %s, %v", path, got, err)
		}
	}
	if ran == 0 {
		t.Skip("no Node.js of this machine runs TypeScript; install one with: make nodes")
	}
}
