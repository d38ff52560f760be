package console

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/term"
)

// clock matches the time of a line.
var clock = regexp.MustCompile(`(?m)^\r?\d\d:\d\d:\d\d\.\d{3} `)

// printed returns the output of a log on a console, without times.
func printed(style Style, write func(log *slog.Logger)) string {
	var out bytes.Buffer
	write(slog.New(New(&out, style, slog.LevelInfo)))
	return clock.ReplaceAllString(out.String(), "")
}

func TestLines(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		style Style
		write func(log *slog.Logger)
		want  string
	}{{
		"the daemon, and a function with a longer name", Style{},
		func(log *slog.Logger) {
			log.Info("running", "functions", 1)
			log.With("function", "thumbnails").Warn("receiving again")
			log.Info("code changed", "files", "a b")
			log.Debug("not printed")
		},
		"INFO  drover  running  functions=1\nWARN  thumbnails  receiving again\nINFO  drover      code changed  files=\"a b\"\n",
	}, {
		"an instance, groups and values", Style{},
		func(log *slog.Logger) {
			log.With("instance", 2, "app", "/app").WithGroup("g").With("a", 1).Info("x", "took", 1234567*time.Microsecond, "none", "", slog.Group("in", "b", true), "zero", time.Duration(0))
		},
		"INFO  [2] drover  x  g.a=1 g.took=1.23s g.none=\"\" g.in.b=true g.zero=0s\n",
	}, {
		"output of a function is not wrapped", Style{Columns: 50},
		func(log *slog.Logger) {
			log.Info("a  b", "worker", 7, "logger", "stdout", "function", "f", "message", "f:1")
			log.Info("{\n  \"a\": 1\n}", "logger", "f", "function", "f", "message", "f:2")
			log.Info("other", "logger", "sub", "function", "f")
		},
		"INFO  f       a  b  message=f:1\nINFO  f       {  message=f:2\n      \"a\": 1\n    }\nINFO  f       other  logger=sub\n",
	}, {
		"a failure is wrapped", Style{Columns: 66},
		func(log *slog.Logger) {
			log.Warn("attempt failed; will be tried again", "function", "orders", "message", "orders:1", "attempt", 1, "took", time.Millisecond, "max_attempts", 5, "error", errors.New("KeyError: 'price'"))
		},
		"WARN  orders  attempt failed; will be tried again:\n    KeyError: 'price'  message=orders:1 attempt=1/5 took=1ms\n",
	}, {
		"a reason that repeats the error", Style{},
		func(log *slog.Logger) {
			log.Error("message dead-lettered", "function", "f", "reason", "failed 5 times, the last time with: no", "error", "no")
			log.Error("message dead-lettered", "function", "f", "reason", "too large")
		},
		"ERROR f       message dead-lettered: no\nERROR f       message dead-lettered: too large\n",
	}, {
		"a traceback is printed once", Style{},
		func(log *slog.Logger) {
			for range 2 {
				log.Warn("failed", "function", "f", "detail", "Traceback\n  line\n")
			}
			log.Warn("failed", "function", "f", "detail", "Traceback\n  other\n")
		},
		"WARN  f       failed\n    Traceback\n      line\nWARN  f       failed\n    the traceback is the same as at CLOCK\nWARN  f       failed\n    Traceback\n      other\n",
	}, {
		"hostile text", Style{Columns: 30},
		func(log *slog.Logger) {
			log.Info("\x1b[2J\r\n10:00:00.000 INFO  f       forged\u202e", "logger", "f", "function", "f\x1b", "k\x07", "\x1b[1m", "lines", "1\n\x1b2")
		},
		"INFO  f?      ?[2J\n    10:00:00.000 INFO  f       forged?\n    logger=f k?=\"\\x1b[1m\"\n    lines:\n    1\n    ?2\n",
	}, {
		"an empty text", Style{Columns: 30},
		func(log *slog.Logger) { log.Info("", "function", "f") },
		"INFO  f       \n",
	}} {
		got := printed(test.style, test.write)
		got = regexp.MustCompile(`same as at \d\d:\d\d:\d\d\.\d{3}`).ReplaceAllString(got, "same as at CLOCK")
		if got != test.want {
			t.Errorf("%s:\n%q, want\n%q", test.name, got, test.want)
		}
	}
}

// Drover's own lines fit into any terminal, with any content.
func TestLinesFit(t *testing.T) {
	t.Parallel()
	for columns := 44; columns <= 160; columns += 7 {
		var out bytes.Buffer
		log := slog.New(New(&out, Style{Columns: columns}, slog.LevelInfo))
		for range 2 { // the second line knows the width of the function's column
			log.Warn("the daemon was suspended: it was stopped, or the machine slept or had no CPU time", "function", "thumbnails-of-注文", "for", "1.2s",
				"why", strings.Repeat("a longer reason ", 9), "path", "/var/lib/"+strings.Repeat("x", 90), "error", "注文が見つかりません 注文が見つかりません")
		}
		for line := range strings.Lines(out.String()) {
			if term.Columns(strings.Trim(line, "\r\n")) > columns {
				t.Errorf("a line is wider than %d columns: %q", columns, line)
			}
		}
	}
}

func TestColors(t *testing.T) {
	t.Parallel()
	palette := term.NewPalette(true, func(string) (string, bool) { return "", false })
	line := Line{Level: slog.LevelError, Function: "f", Text: "x", Attrs: []Attr{{"k", "v"}}}
	got := Style{Palette: palette, FunctionColumns: 2}.Format(line)
	if want := "\x1b[1;31mERROR\x1b[0m \x1b[36mf \x1b[0m  x  \x1b[2mk=v\x1b[0m\n"; !strings.HasSuffix(got, want) {
		t.Errorf("%q, want %q at its end", got, want)
	}
}

func TestTracebacks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, text, want string }{{
		"Python", `Traceback (most recent call last):
  File "/home/me/app/function_app.py", line 24, in orders
    total(json.loads(order))
          ^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.12/json/__init__.py", line 346, in loads
    return _default_decoder.decode(s)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.12/json/decoder.py", line 337, in decode
    obj, end = self.raw_decode(s, idx=_w(s, 0).end())
  File "/home/me/.venv/lib/python3.12/site-packages/requests/api.py", line 1, in f
    f()
  [Previous line repeated 900 more times]
json.decoder.JSONDecodeError: Expecting value`,
		`Traceback (most recent call last):
  File "app/function_app.py", line 24, in orders
    total(json.loads(order))
          ^^^^^^^^^^^^^^^^^
  ... 3 frames of json, requests
json.decoder.JSONDecodeError: Expecting value`,
	}, {
		"a cause, and wide carets", `Traceback (most recent call last):
  File "/other/a.py", line 1, in f
    a(` + strings.Repeat("x", 70) + `)
    ` + strings.Repeat("^", 80) + `
  File "<frozen importlib._bootstrap>", line 1, in g
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/home/me/app/b.py", line 2, in h
    raise ValueError from error
ValueError`,
		`Traceback (most recent call last):
  File "/other/a.py", line 1, in f
    a(` + strings.Repeat("x", 70) + `)
  ... 1 frame of importlib
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "app/b.py", line 2, in h
    raise ValueError from error
ValueError`,
	}, {
		"an exception group", `  + Exception Group Traceback (most recent call last):
  |   File "/home/me/app/f.py", line 3, in f
  |     async with asyncio.TaskGroup() as g:
  |   File "/usr/lib/python3.12/asyncio/taskgroups.py", line 71, in __aexit__
  |     raise BaseExceptionGroup(
  | ExceptionGroup: unhandled (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/home/me/app/f.py", line 9, in g
    |     raise ValueError
    | ValueError`,
		`  + Exception Group Traceback (most recent call last):
  |   File "app/f.py", line 3, in f
  |     async with asyncio.TaskGroup() as g:
  |   ... 1 frame of asyncio
  | ExceptionGroup: unhandled (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "app/f.py", line 9, in g
    |     raise ValueError
    | ValueError`,
	}, {
		"Node.js", `TypeError: Cannot read properties of undefined (reading 'id')
    at total (/home/me/app/index.js:7:23)
    at exports.orders (file:///home/me/app/index.mjs:3:10)
    at /home/me/app/node_modules/@scope/lib/index.js:1:2
    at async Promise.all (index 0)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)`,
		`TypeError: Cannot read properties of undefined (reading 'id')
    at total (app/index.js:7:23)
    at exports.orders (file://app/index.mjs:3:10)
    ... 1 frame of @scope/lib
    at async Promise.all (index 0)
    ... 1 frame of internal`,
	}, {
		"nothing of the user", "Traceback (most recent call last):\n  File \"/usr/lib/python3.12/json/decoder.py\", line 3, in f\n    x\nValueError", "",
	}, {
		"no traceback", "some\n  text", "",
	}} {
		want := test.want
		if want == "" {
			want = test.text
		}
		if got := cutTraceback(test.text, "/home/me", 76); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", test.name, got, want)
		}
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg, err := configs.Parse("drover.yaml", []byte(`
data_dir: `+dir+`
apps: {code: {path: `+dir+`}}
functions:
  orders:
    trigger: {nats: {}}
    handler: {python: {app: code}}
    concurrency: 3
  price:
    trigger: {http: {route: "price/{article:int}", methods: [POST]}}
    handler: {exec: {command: [cat]}}
  tick:
    trigger: {timer: {schedule: "0 0 2 * * *"}}
    handler: {exec: {command: ["true"]}}
`), dir, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	start := Start{Config: cfg, Path: "etc/my app.yaml", Interpreters: map[string]string{"code": "/usr/bin/python3 (Python 3.12.1)"}, Env: func(string) (string, bool) { return "", false }}
	for columns := 40; columns <= 160; columns += 20 {
		text := StartText(start, Style{Columns: columns, Dir: dir})
		for _, want := range []string{
			"drover runs 3 functions of etc/my app.yaml:", "orders", "consumer orders of", "timeout 5m, 5 attempts, at most", "this directory, run by",
			"(Python 3.12.1)", "  drover send orders -c 'etc/my app.yaml' --body hello\n", "  curl -i -X POST http://127.0.0.1:7071/price/1\n", "  drover status -c 'etc/my app.yaml'\n",
		} {
			if !strings.Contains(strings.Join(strings.Fields(text), " "), strings.Join(strings.Fields(want), " ")) {
				t.Errorf("%d columns: it lacks %q:\n%s", columns, want, text)
			}
		}
		for line := range strings.Lines(text) {
			if term.Columns(strings.Trim(line, "\r\n")) > columns && !strings.HasPrefix(line, "  drover ") && !strings.HasPrefix(line, "  curl ") {
				t.Errorf("a line is wider than %d columns: %q", columns, line)
			}
		}
	}
	start.Path, start.Env = "drover.yaml", func(string) (string, bool) { return "", false }
	for i := range 20 {
		cfg.Functions["more"+string(rune('a'+i))] = cfg.Functions["tick"]
	}
	text := StartText(start, Style{})
	if !strings.Contains(text, "drover runs 23 functions of drover.yaml") || !strings.Contains(text, "... and 11 more functions; drover check lists all") || !strings.Contains(text, "  drover status\n") {
		t.Errorf("with many functions:\n%s", text)
	}
}

// The attributes of a line that the daemon reports are in the order of its own log, and durations as short.
func TestReportedLine(t *testing.T) {
	line := LineOf("orders", daemon.LogLine{Text: "done", Attrs: map[string]any{"took": "1.098ms", "attempt": 1.0, "message": "orders:1", "at": "5m0s"}})
	if text := (Style{}).Format(line); !strings.HasSuffix(text, "done  message=orders:1 attempt=1 at=5m0s took=1.1ms\n") {
		t.Errorf("%q", text)
	}
}
