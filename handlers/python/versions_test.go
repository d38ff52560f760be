package python

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// newestNeeded is the minor version that a CI machine must have at least: Python 3.13 changed how
// logging locks its handlers.
const newestNeeded = 13

// everyInterpreter returns the supported versions of Python on this machine, one interpreter each:
// in the path, and those of pyenv.
func everyInterpreter(t *testing.T) []string {
	t.Helper()
	usual, _ := installation.find(t)
	probing.Lock()
	defer probing.Unlock()
	found, err := filepath.Glob(filepath.Join(os.Getenv("HOME"), ".pyenv/versions/3.*/bin/python3"))
	if err != nil {
		t.Fatal(err)
	}
	for minor := 9; minor < 20; minor++ {
		if path, err := exec.LookPath(fmt.Sprint("python3.", minor)); err == nil {
			found = append(found, path)
		}
	}
	paths, versions, newest := []string{usual.Path}, []string{usual.Version}, minorOf(usual.Version)
	seen := map[string]bool{usual.Version: true}
	for _, path := range found {
		i, known := probed[path]
		if !known {
			var err error
			if i, err = FindInterpreter(t.Context(), t.TempDir(), path, os.LookupEnv); err != nil {
				i.Version = "" // it does not run the worker
			}
			probed[path] = i
		}
		if i.Version != "" && !seen[i.Version] {
			paths, versions, seen[i.Version] = append(paths, path), append(versions, i.Version), true
			newest = max(newest, minorOf(i.Version))
		}
	}
	t.Log("this machine has Python " + strings.Join(versions, ", "))
	if newest < newestNeeded && os.Getenv("CI") == "true" {
		t.Errorf("this machine has no Python 3.%d or newer: install one as python3.%d on the path, or with pyenv install 3.%d", newestNeeded, newestNeeded, newestNeeded)
	}
	return paths
}

// probed are the interpreters that everyInterpreter has run, by path.
var (
	probing sync.Mutex
	probed  = make(map[string]interpreters.Interpreter)
)

func minorOf(version string) int {
	parts := strings.Split(version, ".")
	if len(parts) < 2 {
		return 0
	}
	minor, _ := strconv.Atoi(parts[1])
	return minor
}

// Behavior that depends on the version of Python: signatures, logging, standard streams,
// interruption of calls, crash reports, event loops, and forking.
const versionApp = forms + `
import logging, os, signal, sys, time
logging.info("logged at import")
sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
def speak(body):
    logging.info("an info")
    logging.getLogger("my.module").warning("a warning")
    print("printed")
    print("to stderr", file=sys.stderr)
    sys.stdout.buffer.write(b"bytes \xff\n")
    return "ok"
async def aspeak(body):
    await asyncio.sleep(0)
    logging.error("an async error")
def hang(message, context):
    while True: time.sleep(0.001)
async def ahang(message, context): await asyncio.sleep(600)
def crash(body): signal.raise_signal(signal.SIGSEGV)
def fail(body): raise ValueError("as it is") from KeyError("the cause")
`

func TestEveryPythonOfThisMachine(t *testing.T) {
	t.Parallel()
	blocking := append([]string{"speak", "hang", "fail", "crash"}, formNames...)
	async := []string{"abody", "amessage", "aspeak", "ahang"}
	modes := []struct {
		name      string
		threads   int
		template  bool
		functions []string
	}{
		{"inline", 1, false, blocking},
		{"loop and threads", 2, false, append(async, blocking...)},
		{"template", 1, true, blocking},
	}
	for _, path := range everyInterpreter(t) {
		for _, mode := range modes {
			t.Run(path+" "+mode.name, func(t *testing.T) {
				t.Parallel()
				log := newLines()
				p := startApp(t, versionApp, func(c *workers.Config) {
					c.Command.Path, c.Settings.Threads, c.Template = path, mode.threads, mode.template
					c.Log = slog.New(slog.NewTextHandler(log, nil))
				}, mode.functions...)
				log.wait(t, `msg="logged at import"`, "logger=root")
				for _, f := range mode.functions {
					checkVersion(t, p, f)
				}
				log.wait(t, "level=INFO", `msg="an info"`, "logger=root", "function=speak")
				log.wait(t, "level=WARN", `msg="a warning"`, "logger=my.module")
				log.wait(t, "msg=printed", "logger=stdout", "function=speak")
				log.wait(t, `msg="to stderr"`, "logger=stderr", "function=speak")
				log.wait(t, `msg="bytes \\xff"`, "logger=stdout", "function=speak")
				if mode.name == "loop and threads" {
					log.wait(t, "level=ERROR", `msg="an async error"`, "function=aspeak")
				}
			})
		}
	}
}

// checkVersion calls a function of versionApp.
func checkVersion(t *testing.T, p *workers.Pool, f string) {
	t.Helper()
	ctx := soon(t)
	if strings.HasSuffix(f, "hang") {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		ctx = short
	}
	got, err := handle(ctx, handler(t, p, f), &triggers.Message{ID: "x", Body: []byte("{}"), Attempt: 1, Enqueued: time.Now()})
	var failure *handlers.Failure
	detail := ""
	if errors.As(err, &failure) {
		detail = failure.Summary + "\n" + failure.Detail
	}
	switch f {
	case "hang":
		if !strings.Contains(detail, "drover.Timeout") || !strings.Contains(detail, "in hang") {
			t.Errorf("hang: %v\n%s", err, detail)
		}
	case "ahang":
		if !strings.Contains(detail, "CancelledError") {
			t.Errorf("ahang: %v\n%s", err, detail)
		}
	case "crash":
		detail = fmt.Sprint(err, "\n", detail)
		for _, want := range []string{"SIGSEGV", "Fatal Python error: Segmentation fault", "in crash"} {
			if !strings.Contains(detail, want) {
				t.Errorf("crash: %q is not in\n%s", want, detail)
			}
		}
	case "fail":
		if !strings.Contains(detail, "ValueError: as it is") || !strings.Contains(detail, "KeyError: 'the cause'") {
			t.Errorf("fail: %v\n%s", err, detail)
		}
	default:
		if err != nil {
			t.Errorf("%s: %s, %v", f, got, err)
		}
	}
}
