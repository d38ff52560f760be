package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/daemontest"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/triggers"
)

// A request that follows a log ends when its context ends. A client that reads nothing is
// disconnected.
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
		if status, text := daemontest.SendGet(t, admin.SocketPath(cfg.DataDir), path); status != want {
			t.Errorf("%s: %d, want %d: %s", path, status, want, text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	got, ended := make(chan LogLine, 10), make(chan error, 1)
	asked := api.LogRequest{Function: "f", Level: slog.LevelDebug, Follow: true}
	go func() { ended <- client.StreamLog(ctx, asked.RequestPath(), func(l LogLine) { got <- l }) }()
	wait := time.NewTicker(time.Millisecond)
	defer wait.Stop()
	for d.logs.SubscriberCount() == 0 {
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
	for d.logs.SubscriberCount() > 0 { // until the daemon has noticed
		<-wait.C
	}

	// Many clients connect, and disconnect without reading.
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
	if status, text := daemontest.SendGet(t, admin.SocketPath(cfg.DataDir), "/v1/functions/f/log"); status != 503 || !strings.Contains(text, "16 clients follow logs already") {
		t.Errorf("one too many: %d, %s", status, text)
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	for d.logs.SubscriberCount() > 0 {
		<-wait.C
	}
}
