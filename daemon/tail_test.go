package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/triggers"
)

// What a function says does nothing to a terminal, nor looks like another line.
func TestHostileLinesAreTamed(t *testing.T) {
	hostile := "a\x1b[2J\u009b\x07\r\n12:00:00.000 INFO  forged\n"
	line := LogLine{Text: hostile, Attrs: map[string]any{"message": hostile, "detail": "x\n\x1b[2Jy\nz", "k\x1b": 1, "rtl": "\u202etxt"}}
	for _, json := range []bool{false, true} {
		var out strings.Builder
		(&tailCommand{JSON: json}).print(&out, line)
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
	log.wait(t, "\"msg\":\"running\"")
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
	out.wait(t, "INFO  hello world")
	out.wait(t, "DEBUG done")
	out.wait(t, "WARN  attempt failed")
	out.wait(t, "no ?[2J luck")
	status, text, errs := command(t.Context(), nil, nil, "tail", "greet", "-c", file, "--once", "--json", "--last", "100")
	found := false
	for l := range strings.Lines(text) {
		var line LogLine
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

// One that follows ends when it is told to, and a client that reads nothing is let go.
func TestTailOverTheAdminServer(t *testing.T) {
	d, queue, cfg := adminDaemon(t, nil)
	client, err := admin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/v1/functions/f/log?level=loud": 400, "/v1/functions/f/log?last=-1": 400, "/v1/functions/f/log?follow=perhaps": 400,
		"/v1/functions/g/log": 404, "/v1/functions/f/log?follow=false": 200,
	} {
		if status, text := askVia(t, socketHTTP(cfg), http.MethodGet, path); status != want {
			t.Errorf("%s: %d, want %d: %s", path, status, want, text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	got, ended := make(chan LogLine, 10), make(chan error, 1)
	asked := api.LogRequest{Function: "f", Level: slog.LevelDebug, Follow: true}
	go func() { ended <- client.StreamLog(ctx, asked.RequestPath(), func(l LogLine) { got <- l }) }()
	wait := time.NewTicker(time.Millisecond)
	defer wait.Stop()
	for d.logs.Subscribers() == 0 {
		<-wait.C
	}
	queue.Send(triggers.Message{ID: "m1"})
	if line := <-got; line.Text != "done" || line.Attrs["message"] != "m1" {
		t.Errorf("%+v", line)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for d.logs.Subscribers() > 0 { // until it was noticed
		<-wait.C
	}

	// Many that are connected and gone, without a word.
	var open []net.Conn
	for range telemetry.MaxSubscribers {
		conn, err := net.Dial("unix", admin.SocketPath(cfg.DataDir))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		if _, err := io.WriteString(conn, "GET /v1/functions/f/log HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if status, text := askVia(t, socketHTTP(cfg), http.MethodGet, "/v1/functions/f/log"); status != 503 || !strings.Contains(string(text), "16 follow logs already") {
		t.Errorf("one too many: %d, %s", status, text)
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	for d.logs.Subscribers() > 0 {
		<-wait.C
	}
}
