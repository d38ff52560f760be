package cli

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestASignalEndsAStartAtAnyMoment stops drover while it waits for something that never happens:
// Main ends the context at a signal.
func TestASignalEndsAStartAtAnyMoment(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	app := "    trigger: {nats: {connection: here}}\n    handler: {python: {app: a}}\nconnections: {here: {nats: embedded}}\n"
	dir := write(t, map[string]string{
		"silent.yaml":         "functions:\n  f:\n    trigger: {nats: {connection: there}}\n    handler: {exec: {command: [cat]}}\nconnections: {there: {nats: \"nats://" + silent.Addr().String() + "\"}}\n",
		"interpreter.yaml":    "functions:\n  f:\n" + app + "apps: {a: {path: ./app, interpreter: ./hangs}}\n",
		"import.yaml":         "functions:\n  f:\n" + app + "apps: {a: {path: ./app, kill_grace: 10m}}\n",
		"template.yaml":       "functions:\n  f:\n" + app + "apps: {a: {path: ./app, kill_grace: 10m, start: template}}\n",
		"app/f.py":            "import time\nprint('importing', flush=True)\ntime.sleep(3600)\n",
		"app/function_app.py": "import f\n",
		"hangs":               "#!/bin/sh\necho > \"$0.up\"\nsleep 3600\n",
	})
	if err := errors.Join(os.Chmod(dir+"/hangs", 0o700), syscall.Mkfifo(dir+"/hangs.up", 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ command, file, wait string }{
		{"run", "silent.yaml", ""}, {"run", "interpreter.yaml", ""}, {"check", "interpreter.yaml", ""},
		{"run", "import.yaml", "importing"}, {"run", "template.yaml", "importing"},
	} {
		t.Run(c.command+" "+c.file, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out, done := newPrinted(), make(chan struct{})
			go func() {
				defer close(done)
				Command(ctx, []string{c.command, dir + "/" + c.file}, &IO{In: strings.NewReader(""), Out: out, Err: out, Env: os.LookupEnv, Environ: os.Environ})
			}()
			switch {
			case c.wait != "":
				out.WaitFor(t, c.wait)
			case c.file == "silent.yaml":
				conn, err := silent.Accept() // and sends nothing
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
			default:
				if _, err := os.ReadFile(dir + "/hangs.up"); err != nil { // the start waits for the script
					t.Fatal(err)
				}
			}
			cancel()
			select {
			case <-done:
			case <-time.After(patience / 4):
				t.Fatalf("it does not end:\n%s", out)
			}
		})
	}
}
