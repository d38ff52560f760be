package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/triggers"
)

func testLine(n int) LogLine { return LogLine{Level: slog.LevelInfo, Text: fmt.Sprint(n)} }

// What is kept is bounded, by lines and by bytes.
func TestKeptLinesAreBounded(t *testing.T) {
	l := newLines()
	for n := range 3 * keptLines {
		l.note("f", testLine(n))
	}
	f, before := l.follow("f", slog.LevelInfo, 1000)
	if len(before) != keptLines || before[0].Text != fmt.Sprint(2*keptLines) {
		t.Errorf("%d lines, from %s on", len(before), before[0].Text)
	}
	l.leave(f)
	large := strings.Repeat("x", longestText)
	for range 100 {
		l.note("f", LogLine{Text: large})
	}
	if k := l.kept["f"]; k.bytes > keptBytes || len(k.lines) != keptBytes/longestText-1 {
		t.Errorf("%d bytes in %d lines", k.bytes, len(k.lines))
	}
	if f, before = l.follow("g", slog.LevelInfo, 10); len(before) != 0 {
		t.Errorf("g has lines of f: %v", before)
	}
	l.leave(f)
}

// One who does not read misses lines, is told how many, and holds up nobody.
func TestASlowFollowerIsToldWhatItMissed(t *testing.T) {
	l := newLines()
	f, _ := l.follow("f", slog.LevelInfo, 0)
	for n := range followerRoom + 5 {
		l.note("f", testLine(n))
	}
	for range followerRoom {
		if line := <-f.lines; line.Dropped != 0 {
			t.Fatalf("%+v", line)
		}
	}
	l.note("f", testLine(-1))
	if line := <-f.lines; line.Dropped != 5 || line.Text != "-1" {
		t.Errorf("%+v, want 5 dropped", line)
	}
	l.note("f", testLine(-2))
	if line := <-f.lines; line.Dropped != 0 {
		t.Errorf("told twice: %+v", line)
	}
	l.leave(f)
}

func TestFollowersAreBounded(t *testing.T) {
	l := newLines()
	var all []*follower
	for range maxFollowers {
		f, _ := l.follow("f", slog.LevelInfo, 0)
		all = append(all, f)
	}
	if f, _ := l.follow("f", slog.LevelInfo, 0); f != nil {
		t.Error("one too many may follow")
	}
	l.leave(all[0])
	if f, _ := l.follow("f", slog.LevelDebug, 0); f == nil {
		t.Error("none may follow in the place of one that left")
	}
}

// The handler beside the log's keeps what is about a function, whatever way that is
// said, and what the log does not have while somebody wants it.
func TestTee(t *testing.T) {
	var text strings.Builder
	l := newLines()
	l.use(&configs.Config{
		Apps:      map[string]configs.App{"a": {Dir: "/a"}},
		Functions: map[string]configs.Function{"f": {Handler: configs.Handler{Python: &configs.PythonHandler{App: "a"}}}, "g": {Handler: configs.Handler{Go: "g"}}},
	})
	log := slog.New(&tee{next: slog.NewTextHandler(&text, nil), lines: l})
	log.Info("about nobody")
	log.With("function", "f").Warn("one", "message", "m1", "took", time.Second, "error", errors.New("oh"), "attempt", 2)
	log.Info("two", "function", "g")
	log.With("app", "/a").WithGroup("of").Info("three", "x", slog.GroupValue(slog.Int("y", 1)))
	log.With("function", "f").Debug("not wanted")
	f, before := l.follow("f", slog.LevelDebug, 10)
	if len(before) != 2 || before[0].Text != "one" || before[1].Text != "three" {
		t.Fatalf("%+v", before)
	}
	if a := before[0].Attrs; a["message"] != "m1" || a["took"] != "1s" || a["error"] != "oh" || a["attempt"] != int64(2) || a["function"] != nil {
		t.Errorf("%v", a)
	}
	if before[1].Attrs["of.x"] != "[y=1]" {
		t.Errorf("%v", before[1].Attrs)
	}
	if !log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug is wanted and not enabled")
	}
	log.With("function", "f").Debug("wanted")
	if line := <-f.lines; line.Text != "wanted" {
		t.Errorf("%+v", line)
	}
	l.leave(f)
	if log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug is enabled with nobody there")
	}
	if strings.Contains(text.String(), "wanted") || strings.Count(text.String(), "\n") != 4 {
		t.Errorf("the log is\n%s", text.String())
	}
}

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
	if status, _, errs := command(t.Context(), nil, nil, "tail", "greet", file); status != ExitFailed || !strings.Contains(errs, "no daemon of this configuration is running here") {
		t.Errorf("without a daemon: status %d, %s", status, errs)
	}
	log, stop := startCommand(t, "run", file)
	log.wait(t, "\"msg\":\"running\"")
	if status, _, errs := command(t.Context(), nil, nil, "tail", "greeet", file); status != ExitFailed || !strings.Contains(errs, `there is no function "greeet" (did you mean greet?); there are: greet`) {
		t.Errorf("status %d: %s", status, errs)
	}
	if status, _, errs := command(t.Context(), nil, nil, "tail", "greet", file, "--level", "loud"); status != ExitUsage {
		t.Errorf("status %d: %s", status, errs)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := newPrinted()
	ended := make(chan int, 1)
	go func() {
		ended <- Command(ctx, []string{"tail", "greet", file, "--level", "debug"}, &IO{Out: out, Err: out, Env: os.LookupEnv, Environ: os.Environ})
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
	status, text, errs := command(t.Context(), nil, nil, "tail", "greet", file, "--once", "--json", "--last", "100")
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
	client, err := newAdminClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/v1/functions/f/log?level=loud": 400, "/v1/functions/f/log?last=-1": 400, "/v1/functions/f/log?follow=perhaps": 400,
		"/v1/functions/g/log": 404, "/v1/functions/f/log?follow=false": 200,
	} {
		if status, text := askVia(t, client, http.MethodGet, path); status != want {
			t.Errorf("%s: %d, want %d: %s", path, status, want, text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	got, ended := make(chan LogLine, 10), make(chan error, 1)
	asked := tailed{function: "f", level: slog.LevelDebug, follow: true}
	go func() { ended <- client.stream(ctx, asked.path(), func(l LogLine) { got <- l }) }()
	wait := time.NewTicker(time.Millisecond)
	defer wait.Stop()
	for d.lines.wanted.Load() != int64(slog.LevelDebug) {
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
	for d.lines.wanted.Load() == int64(slog.LevelDebug) { // until it was noticed
		<-wait.C
	}

	// Many that are connected and gone, without a word.
	var open []net.Conn
	for range maxFollowers {
		conn, err := net.Dial("unix", adminSocket(cfg.DataDir))
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
	if status, text := askVia(t, client, http.MethodGet, "/v1/functions/f/log"); status != 503 || !strings.Contains(string(text), "16 follow logs already") {
		t.Errorf("one too many: %d, %s", status, text)
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	for d.followers() > 0 {
		<-wait.C
	}
}

func (d *Daemon) followers() int {
	d.lines.mu.Lock()
	defer d.lines.mu.Unlock()
	return len(d.lines.followers)
}
