package python

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// At import a library can use sys.stdout in the same ways as in Python itself.
func TestStandardStreamsOfferWhatPythonsDo(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, `
import contextlib, io, subprocess, sys
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True, write_through=False)
    missing = [name for name in dir(sys.__stdout__) if not hasattr(stream, name)]
    assert not missing, missing
    assert isinstance(stream, io.TextIOWrapper) and not stream.isatty() and not stream.closed
    assert (stream.name, stream.mode) in (("<stdout>", "w"), ("<stderr>", "w"))
def recon(message): return [sys.stdout.name, sys.stdout.errors, sys.stdout.fileno(), sys.stderr.fileno()]
def write(message):
    sys.stdout.writelines(["two ", "parts\n"])
    sys.stdout.buffer.write(b"binary \xff\xfe\n")
    sys.stdout.buffer.write("h\xe4lf".encode()[:2])
    sys.stdout.buffer.write("h\xe4lf".encode()[2:] + b"\n")
    with contextlib.redirect_stdout(io.StringIO()) as kept: print("kept")
    print("long " + "x" * 40_000 + " end")
    subprocess.run(["sh", "-c", "echo from a child"], check=True)
    return kept.getvalue()
def closes(message):
    sys.stderr.close()
    sys.stderr.detach()
    print("still here", file=sys.stderr)
def wraps(message):
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
    print("through a wrapper")
`, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "recon", "write", "closes", "wraps")
	for f, want := range map[string]string{"recon": `["<stdout>","replace",1,2]`, "write": "kept\n"} {
		if got, err := call(t, p, f, &triggers.Message{ID: "m"}); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", f, got, err, want)
		}
	}
	log.wait(t, `msg="two parts"`, "function=write")
	log.wait(t, `msg="binary \\xff\\xfe"`, "function=write")
	log.wait(t, "msg=hälf", "function=write")
	log.wait(t, "long xxx")
	log.wait(t, `xxx end"`)
	log.wait(t, `msg="from a child"`, "stream=stdout")
	for _, f := range []string{"closes", "wraps"} {
		if got, err := call(t, p, f, &triggers.Message{ID: "m"}); err != nil {
			t.Errorf("%s: %s, %v", f, got, err)
		}
	}
	log.wait(t, `msg="still here"`, "function=closes")
	log.wait(t, `msg="through a wrapper"`)
}

// logging.basicConfig has the same effect as without the worker.
func TestBasicConfig(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		setUp string
		want  []string // in the line of the warning
		info  bool     // whether the info is logged, too
	}{
		"nothing":            {"", []string{"level=WARN", "msg=careful", "logger=shop"}, true},
		"level":              {"logging.basicConfig(level=logging.WARNING)", []string{"level=WARN", "msg=careful"}, false},
		"level, debug":       {"logging.basicConfig(level='DEBUG')", []string{"level=WARN", "msg=careful"}, true},
		"format":             {"logging.basicConfig(format='[%(name)s] %(message)s')", []string{"level=WARN", `msg="[shop] careful"`, "logger=shop"}, true},
		"format and level":   {"logging.basicConfig(level=20, format='[%(name)s] %(message)s', stream=sys.stdout)", []string{"level=WARN", `msg="[shop] careful"`}, true},
		"the first counts":   {"logging.basicConfig(level=20, format='1 %(message)s'); logging.basicConfig(level=40, format='2 %(message)s')", []string{`msg="1 careful"`}, true},
		"force":              {"logging.basicConfig(level=40); logging.basicConfig(level=20, format='2 %(message)s', force=True)", []string{"level=WARN", `msg="2 careful"`}, true},
		"handlers":           {"logging.basicConfig(level=20, handlers=[logging.StreamHandler()])", []string{"level=WARN", "careful"}, true},
		"a file beside":      {"logging.basicConfig(level=20, filename='own.log')", []string{"level=WARN", "msg=careful"}, true},
		"a handler of one's": {"logging.getLogger().addHandler(logging.NullHandler()); logging.basicConfig(level=40)", []string{"msg=careful"}, true},
		"dictConfig":         {"import logging.config; logging.config.dictConfig({'version': 1, 'handlers': {'c': {'class': 'logging.StreamHandler'}}, 'root': {'level': 'INFO', 'handlers': ['c']}})", []string{"careful", "logger=stderr"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := newLines()
			var dir string
			p := startApp(t, "import logging, sys\n"+test.setUp+`
def speak(body):
    logging.getLogger("shop").info("an info")
    logging.getLogger("shop").warning("careful")
    print("the end")
`, func(c *workers.Config) { c.Log, dir = slog.New(slog.NewTextHandler(log, nil)), c.App }, "speak")
			if _, err := call(t, p, "speak", &triggers.Message{}); err != nil {
				t.Fatal(err)
			}
			log.wait(t, `msg="the end"`)
			log.wait(t, append(test.want, "function=speak")...)
			text := log.String()
			if got := strings.Contains(text, "an info"); got != test.info {
				t.Errorf("an info is logged: %v; want %v", got, test.info)
			}
			if n := strings.Count(text, "careful"); n != 1 {
				t.Errorf("the warning is logged %d times:\n%s", n, text)
			}
			if name == "a file beside" {
				if own, err := os.ReadFile(dir + "/own.log"); err != nil || !strings.Contains(string(own), "careful") {
					t.Error(fmt.Sprint(string(own), err))
				}
			}
		})
	}
}
