package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The daemon works with the account file of docs/nats.md unchanged: it receives, retries, sends
// results, dead-letters failed messages, and lists and replays dead letters.
func TestTheLeastRightsAreEnough(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/nats.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```conf\n(.*?)```").FindSubmatch(doc)
	if found == nil {
		t.Fatal("docs/nats.md has no account file")
	}
	dir := write(t, map[string]string{"server.conf": string(found[1])})
	options, err := server.ProcessConfigFile(filepath.Join(dir, "server.conf"))
	if err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port, options.JetStream, options.StoreDir, options.NoSigs, options.NoLog = "127.0.0.1", server.RANDOM_PORT, true, t.TempDir(), true, true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	url := fmt.Sprintf("nats://127.0.0.1:%d", s.Addr().(*net.TCPAddr).Port)
	admin, err := nats.Connect(url, nats.UserInfo("admin", "change-me-too"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	js, err := jetstream.New(admin)
	if err != nil {
		t.Fatal(err)
	}
	for name, retention := range map[string]jetstream.RetentionPolicy{"ORDERS": jetstream.WorkQueuePolicy, "ORDERS-DEAD": jetstream.LimitsPolicy, "RECEIPTS": jetstream.LimitsPolicy} {
		subject := name + ".>"
		if name == "ORDERS" {
			subject = "orders.>"
		}
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{subject}, Retention: retention}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := js.CreateConsumer(t.Context(), "ORDERS", jetstream.ConsumerConfig{Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "drover.yaml")
	text := fmt.Sprintf(`version: 1
log: {format: text}
data_dir: %s
connections: {c: {nats: %q, user: drover, password: change-me}}
functions:
  ful:
    trigger: {nats: {connection: c, stream: ORDERS, consumer: billing}}
    handler: {exec: {command: [sh, -c, 'case "$$(cat)" in bad*) exit 1;; *) echo fine;; esac']}}
    output: {nats: {connection: c, subject: RECEIPTS.ful}}
    retry: {max_attempts: 2, initial: 10ms}
`, t.TempDir(), url)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"bad", "good"} {
		if _, err := js.Publish(t.Context(), "orders.x", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	messages := func(stream string) uint64 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		info, err := js.Stream(ctx, stream)
		if err != nil {
			t.Fatal(err)
		}
		return info.CachedInfo().State.Msgs
	}
	cmd, out, ended := child(t, "run", file)
	until(t, out, "the result and the dead letter", func() bool {
		return messages("RECEIPTS") == 1 && messages("ORDERS-DEAD") == 1 && messages("ORDERS") == 0
	})
	out.WaitFor(t, "message dead-lettered")
	if status, listed, errs := command(t.Context(), nil, nil, "dead", "list", "ful", "-c", file); status != ExitOK || !strings.Contains(listed, "failed 2 times") {
		t.Errorf("dead list: status %d\n%s%s", status, listed, errs)
	}
	if status, said, errs := command(t.Context(), nil, nil, "dead", "replay", "ful", "-c", file, "--all"); status != ExitOK {
		t.Errorf("dead replay: status %d\n%s%s", status, said, errs)
	}
	until(t, out, "the second dead letter", func() bool { return strings.Count(out.String(), "message dead-lettered") == 2 })
	if strings.Contains(out.String(), "lacks a right") || strings.Contains(out.String(), "cannot be counted") {
		t.Errorf("a right was missed:\n%s", out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
