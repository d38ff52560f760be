package natsjs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
)

// leastRights is the account file of docs/nats.md, as a server reads it.
func leastRights(t testing.TB) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/nats.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```conf\n(.*?)```").FindSubmatch(doc)
	if found == nil {
		t.Fatal("docs/nats.md has no account file")
	}
	return string(found[1])
}

// guarded starts a server with the accounts of a file: admin has all rights, drover those in the
// file; deny removes one.
func guarded(t testing.TB, deny string) (admin *client.Connection, drover client.Config) {
	t.Helper()
	text := leastRights(t)
	if deny != "" {
		before := text
		if text = regexp.MustCompile(`(?m)^.*"`+regexp.QuoteMeta(deny)+`".*\n`).ReplaceAllString(text, "\"nothing\"\n"); text == before {
			t.Fatalf("the file has no %s", deny)
		}
	}
	file := filepath.Join(t.TempDir(), "server.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b := startBroker(t, func(o *server.Options) {
		o.Accounts, o.Users = options.Accounts, options.Users
	})
	return dialBroker(t, client.Config{URLs: []string{b.url()}, User: "admin", Password: "change-me-too"}),
		client.Config{Name: "test", URLs: []string{b.url()}, User: "drover", Password: "change-me"}
}

// With exactly the rights in docs/nats.md, messages are received, retried with counted attempts,
// dead-lettered and peeked, and no right is reported as missing.
func TestTheLeastRights(t *testing.T) {
	admin, as := guarded(t, "")
	cfg := existing(t, admin, 1)
	for _, name := range []string{"ORDERS-DEAD", "RECEIPTS"} {
		if _, err := admin.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}}); err != nil {
			t.Fatal(err)
		}
	}
	var log logBook
	as.Log, cfg.Log = log.logger(), log.logger()
	c, err := client.Connect(t.Context(), as)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	tr := open(t, c, cfg)
	send(t, admin, "orders.x", "1", "2")
	got := receive(t, tr, 2)
	done(t, got[0])
	settle(t, got[1], triggers.Verdict{Kind: triggers.Retry})
	again := receive(t, tr, 1)[0]
	if again.Message.Attempt != 2 {
		t.Errorf("the attempt is %d, want 2", again.Message.Attempt)
	}
	settle(t, again, triggers.Verdict{Kind: triggers.Reject, Reason: "no"})
	send(t, admin, "orders.x", "3")
	waitFor(t, "the backlog", func() bool {
		b, err := tr.Backlog(t.Context())
		return err == nil && b.Ready == 1 && !b.Oldest.IsZero()
	})
	send(t, c, "RECEIPTS.x", "a result")
	if dead := deadLetters(t, c, "ORDERS-DEAD"); len(dead) != 1 {
		t.Errorf("%d dead letters, want 1", len(dead))
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if all := c.Denials(); len(all) > 0 || strings.Contains(log.String(), "lacks a right") {
		t.Errorf("%v\n%s", all, log.String())
	}
}

// A missing right is reported within five seconds, with its subject and purpose. If nothing works
// without it, the start fails.
func TestMissingRightsAreNamed(t *testing.T) {
	for subject, test := range map[string]struct{ needed, denied string }{
		"$JS.API.STREAM.INFO.ORDERS":               {"look a stream up", ""},
		"$JS.API.CONSUMER.INFO.ORDERS.billing":     {"look the consumer up", ""},
		"$JS.API.CONSUMER.MSG.NEXT.ORDERS.billing": {"receive messages", ""},
		"$JS.ACK.ORDERS.billing.>":                 {"settle messages", "$JS.ACK.ORDERS.billing.1.0.0.0.0"},
		"ORDERS-DEAD.>":                            {"send dead letters", "ORDERS-DEAD.orders.drover"},
		"$KV.drover-attempts.ORDERS.billing.*":     {"count failures", "$KV.drover-attempts.ORDERS.billing.0"},
		"$JS.API.STREAM.PURGE.KV_drover-attempts":  {"remove the counts", ""},
		"$JS.API.STREAM.INFO.KV_drover-attempts":   {"count failures", ""},
		"_INBOX.>":                                 {"the server's answers", ""},
		"$JS.API.DIRECT.GET.KV_drover-attempts.$KV.drover-attempts.ORDERS.billing.*": {"count failures", "$JS.API.DIRECT.GET.KV_drover-attempts.$KV.drover-attempts.ORDERS.billing.0"},
	} {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			admin, as := guarded(t, subject)
			cfg := existing(t, admin, 1)
			for _, name := range []string{"ORDERS-DEAD"} {
				if _, err := admin.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := admin.JetStream().CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: client.AttemptsBucket}); err != nil {
				t.Fatal(err)
			}
			var log logBook
			as.Log, cfg.Log = log.logger(), log.logger()
			c, err := client.Connect(t.Context(), as)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			named := subject
			if test.denied != "" {
				named = test.denied
			}
			tr, err := Open(t.Context(), c, cfg)
			if err != nil {
				var denied *client.Denied
				if !errors.As(err, &denied) || denied.Subject != named || !strings.Contains(err.Error(), test.needed) {
					t.Errorf("the start ended with: %v", err)
				}
				return
			}
			t.Cleanup(func() { _ = tr.Close(context.Background()) })
			waiting := make(chan struct{})
			defer func() { <-waiting }()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				defer close(waiting)
				_, _ = tr.Receive(ctx, 1)
			}()
			waitFor(t, "the missing right", func() bool { return strings.Contains(troublesOf(tr, triggers.TroubleRights), named) })
			if said := troublesOf(tr, triggers.TroubleRights); !strings.Contains(said, test.needed) {
				t.Errorf("%s", said)
			}
			if !strings.Contains(log.String(), "the account lacks a right") {
				t.Errorf("the log does not say so:\n%s", log.String())
			}
		})
	}
}
