package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/console"
)

// The text of a function cannot control a terminal, and cannot be taken for another line.
func TestHostileLinesAreTamed(t *testing.T) {
	hostile := "a\x1b[2J\u009b\x07\r\n12:00:00.000 INFO  forged\n"
	line := daemon.LogLine{Text: hostile, Attrs: map[string]any{"message": hostile, "detail": "x\n\x1b[2Jy\nz", "k\x1b": 1, "rtl": "\u202etxt"}}
	for _, json := range []bool{false, true} {
		var out strings.Builder
		console.PrintLine(&out, console.Style{}, "", line, json)
		if text := out.String(); strings.ContainsAny(text, "\x1b\x07\r\u009b\u202e") && (!json || strings.ContainsAny(text, "\x1b\x07\r\u009b")) {
			t.Errorf("json %v: %q", json, text)
		}
		for n, l := range strings.Split(out.String(), "\n") {
			if n > 0 && l != "" && !strings.HasPrefix(l, "    ") {
				t.Errorf("json %v: a line by itself: %q", json, l)
			}
		}
	}
}

func TestTailCommand(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"drover.yaml":         pythonConfig,
		"app/function_app.py": "import logging\ndef greet(body):\n    print('hello', body.decode())\n    if body == b'bad': raise ValueError('no \\x1b[2J luck')\n",
	})
	file := filepath.Join(dir, "drover.yaml")
	if status, _, errs := command(t.Context(), nil, nil, "tail", "greet", "-c", file); status != ExitFailed || !strings.Contains(errs, "no daemon of this configuration is running here") {
		t.Errorf("without a daemon: status %d, %s", status, errs)
	}
	log, stop := startCommand(t, "run", file)
	log.WaitFor(t, "\"msg\":\"running\"")
	if status, _, errs := command(t.Context(), nil, nil, "tail", "greeet", "-c", file); status != ExitFailed || !strings.Contains(errs, `there is no function "greeet" (did you mean greet?); there are: greet`) {
		t.Errorf("status %d: %s", status, errs)
	}
	if status, _, errs := command(t.Context(), nil, nil, "tail", "greet", "-c", file, "--level", "loud"); status != ExitUsage {
		t.Errorf("status %d: %s", status, errs)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := newPrinted()
	ended := make(chan int, 1)
	go func() {
		ended <- Command(ctx, []string{"tail", "greet", "-c", file, "--level", "debug"}, &IO{Out: out, Err: out, Env: os.LookupEnv, Environ: os.Environ})
	}()
	for _, body := range []string{"world", "bad"} {
		if status, _, errs := command(t.Context(), nil, nil, "send", "greet", "-c", file, "--body", body); status != ExitOK {
			t.Fatal(errs)
		}
	}
	out.WaitFor(t, "INFO  hello world")
	out.WaitFor(t, "DEBUG done")
	out.WaitFor(t, "WARN  attempt failed")
	out.WaitFor(t, "no ?[2J luck")
	status, text, errs := command(t.Context(), nil, nil, "tail", "greet", "-c", file, "--once", "--json", "--last", "100")
	found := false
	for l := range strings.Lines(text) {
		var line daemon.LogLine
		if err := json.Unmarshal([]byte(l), &line); err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		message, _ := line.Attrs["message"].(string)
		found = found || line.Text == "hello world" && message != "" && line.Attrs["worker"] != nil
	}
	if status != ExitOK || !found {
		t.Errorf("status %d\n%s%s", status, text, errs)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, log)
	}
	if status := <-ended; status != ExitOK || !strings.Contains(out.String(), "the daemon has ended") {
		t.Errorf("the tail ended with status %d\n%s", status, out)
	}
}
