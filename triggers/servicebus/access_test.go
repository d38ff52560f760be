package servicebus

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

func logTo(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func TestRightsThatAreMissing(t *testing.T) {
	b := startWith(t, emulator.Options{Keys: []emulator.Key{{Name: "send", Key: "s3nd", Send: true}, {Name: "listen", Key: "l1sten", Listen: true}}}, emulator.QueueOptions{})
	send := b.ConnectionString(b.address)
	listen := strings.NewReplacer("Name=send", "Name=listen", "s3nd", "l1sten").Replace(send)
	wrong := strings.Replace(listen, "l1sten", "hunter2", 1)

	tr, err := Open(t.Context(), Config{Access: access(listen), Queue: "orders", Log: logTo(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, test := range []struct{ name, connection, want string }{
		{"only Send", send, "needs the right Listen"}, {"a wrong key", wrong, "needs the right Listen"},
		{"an ended signature", signed(send, "listen", "l1sten", -time.Hour), "the signature has expired, or this machine's clock is wrong"},
	} {
		for _, sessions := range []bool{false, true} {
			_, err := Open(t.Context(), Config{Access: access(test.connection), Queue: "orders", Sessions: sessions, Log: logTo(t)})
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v", test.name, err)
			}
		}
	}
	if _, err := Open(t.Context(), Config{Access: access(listen), Queue: "orders", Create: true, Log: logTo(t)}); err == nil || !strings.Contains(err.Error(), "create: true needs the right Manage") {
		t.Errorf("%v", err)
	}
	s, err := NewSender(access(listen), "orders")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), &triggers.Message{Body: []byte("x")}); err == nil || !strings.Contains(err.Error(), "needs the right Send") {
		t.Errorf("%v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	gone := errors.New("the file is gone")
	if _, err := Open(t.Context(), Config{Access: &Access{ConnectionString: func() (string, error) { return "", gone }}, Queue: "orders", Log: logTo(t)}); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	// A signature instead of a key.
	tr, err = Open(t.Context(), Config{Access: access(signed(send, "listen", "l1sten", time.Hour)), Queue: "orders", Log: logTo(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// signed returns a connection string with a shared access signature.
func signed(connection, name, key string, left time.Duration) string {
	endpoint, _, _ := strings.Cut(connection, ";")
	resource := url.QueryEscape(strings.TrimPrefix(endpoint, "Endpoint="))
	until := fmt.Sprint(time.Now().Add(left).Unix())
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(resource + "\n" + until))
	return fmt.Sprintf("%s;SharedAccessSignature=SharedAccessSignature sr=%s&sig=%s&se=%s&skn=%s;UseDevelopmentEmulator=true",
		endpoint, resource, url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))), until, name)
}

// A key is replaced while the trigger runs: new connections use the new one.
func TestASecretThatChanges(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		b := startWith(t, emulator.Options{Keys: []emulator.Key{{Name: "all", Key: "old", Manage: true}}}, emulator.QueueOptions{RequiresSession: sessions})
		var now atomic.Pointer[string]
		old := b.ConnectionString(b.address)
		now.Store(&old)
		tr := b.open(t, func(c *Config) {
			c.Sessions = sessions
			c.Access = &Access{ConnectionString: func() (string, error) { return *now.Load(), nil }}
		})
		b.send(t, triggers.Message{Body: []byte("1"), OrderingKey: "a"})
		settle(t, receive(t, tr, 1)[0], triggers.Done)
		b.SetKeys(emulator.Key{Name: "all", Key: "new", Manage: true})
		_, err := tr.Receive(t.Context(), 1)
		for deadline := time.Now().Add(within); err != nil && !strings.Contains(err.Error(), "needs the right Listen"); _, err = tr.Receive(t.Context(), 1) {
			if time.Now().After(deadline) {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), "needs the right Listen") {
			t.Fatalf("with the old key: %v", err)
		}
		renewed := b.ConnectionString(b.address)
		now.Store(&renewed)
		b.send(t, triggers.Message{Body: []byte("2"), OrderingKey: "a"})
		settle(t, receive(t, tr, 1)[0], triggers.Done)
		b.wantEmpty(t)
	}
}

func TestEntitiesThatDoNotFit(t *testing.T) {
	b := start(t, emulator.QueueOptions{MaxDeliveryCount: 5})
	for _, err := range []error{
		b.CreateQueue("carts", emulator.QueueOptions{RequiresSession: true}), b.CreateQueue("once", emulator.QueueOptions{DuplicateWindow: time.Minute}),
		b.CreateQueue("off", emulator.QueueOptions{}), b.CreateTopic("events"), b.CreateSubscription("events", "carts", emulator.QueueOptions{RequiresSession: true}),
		b.SetDisabled("off", true),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	limited := b.limited(t)
	all := b.ConnectionString(b.address)
	for _, test := range []struct {
		name    string
		cfg     Config
		managed string // with the right Manage
		want    string // without; empty: it opens
	}{
		{"attempts", Config{Queue: "orders", MaxAttempts: 5}, "the MaxDeliveryCount of orders is 5", ""},
		{"a queue with sessions", Config{Queue: "carts"}, "requires sessions; set sessions: true", "set sessions: true"},
		{"a subscription with sessions", Config{Topic: "events", Subscriptions: []string{"carts"}}, "requires sessions; set sessions: true", "set sessions: true"},
		{"a queue without sessions", Config{Queue: "orders", Sessions: true}, "has no sessions; remove sessions", "remove sessions"},
		{"duplicates", Config{Queue: "once", Scheduled: true}, "set retry.mode: hold", ""},
		{"switched off", Config{Queue: "off"}, "set its status to Active", "set its status to Active"},
		{"missing", Config{Queue: "nowhere", Sessions: true}, "check the name", "check the name"},
		{"missing topic", Config{Topic: "nowhere", Subscriptions: []string{"x"}}, "check the name", "check the name"},
	} {
		for connection, want := range map[string]string{all: test.managed, limited: test.want} {
			test.cfg.Access, test.cfg.Log = access(connection), logTo(t)
			tr, err := Open(t.Context(), test.cfg)
			switch {
			case err == nil:
				if err := tr.Close(t.Context()); err != nil {
					t.Error(err)
				}
				if want != "" {
					t.Errorf("%s: it opens; want %q", test.name, want)
				}
			case want == "" || !strings.Contains(err.Error(), want):
				t.Errorf("%s: %v; want %q", test.name, err, want)
			}
		}
	}
}

func TestCreate(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	for range 2 { // the second finds it
		tr := b.open(t, func(c *Config) { c.Queue, c.Create, c.MaxAttempts = "new", true, 20 })
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	tr := b.open(t, func(c *Config) {
		c.Queue, c.Topic, c.Subscriptions, c.Create, c.Sessions = "", "events", []string{"one", "two"}, true, true
	})
	b.sendTo(t, "events", triggers.Message{Body: []byte("x"), OrderingKey: "a"})
	for _, d := range receive(t, tr, 2) {
		settle(t, d, triggers.Done)
	}
}

// An entity is disabled or deleted while it is read, and then restored.
func TestAnEntityThatGoesAndComesBack(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, nil)
	for _, step := range []struct {
		name    string
		off, on func() error
		want    string
	}{
		{"switched off", func() error { return b.SetDisabled("orders", true) }, func() error { return b.SetDisabled("orders", false) }, "set its status to Active"},
		{"deleted", func() error { return b.Delete("orders") }, func() error { return b.CreateQueue("orders", emulator.QueueOptions{}) }, "check the name"},
	} {
		b.send(t, text("before")...)
		settle(t, receive(t, tr, 1)[0], triggers.Done)
		if err := step.off(); err != nil {
			t.Fatal(err)
		}
		_, err := tr.Receive(t.Context(), 1)
		for deadline := time.Now().Add(within); (err == nil || !strings.Contains(err.Error(), step.want)) && time.Now().Before(deadline); _, err = tr.Receive(t.Context(), 1) {
		}
		if err == nil || !strings.Contains(err.Error(), step.want) {
			t.Errorf("%s: %v; want that it says %q", step.name, err, step.want)
		}
		if err := step.on(); err != nil {
			t.Fatal(err)
		}
		b.send(t, text("after")...)
		settle(t, receive(t, tr, 1)[0], triggers.Done)
	}
}

func TestBacklogByRight(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	if err := b.CreateQueue("carts", emulator.QueueOptions{RequiresSession: true}); err != nil {
		t.Fatal(err)
	}
	limited := b.limited(t)
	all := make([]triggers.Message, 300)
	for i := range all {
		all[i].Body = []byte("x")
	}
	b.send(t, all...)
	b.sendTo(t, "carts", triggers.Message{OrderingKey: "a"}, triggers.Message{OrderingKey: "b"})
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ScheduleMessages(t.Context(), scheduled(2), time.Now().Add(time.Hour), nil); err != nil {
		t.Fatal(err)
	}
	tr := b.open(t, func(c *Config) { c.Prefetch = 0 })
	if err := receive(t, tr, 1)[0].Settle(t.Context(), triggers.Verdict{Kind: triggers.Reject, Reason: "bad"}); err != nil {
		t.Fatal(err)
	}
	held := receive(t, tr, 1)[0]
	got, err := tr.Backlog(t.Context())
	if err != nil || got.Ready != 298 || got.AtLeast || got.Oldest.IsZero() || got.More == nil || *got.More != (triggers.BacklogMore{Dead: 1, Scheduled: 2}) {
		t.Errorf("with Manage: %+v, %+v, %v", got, got.More, err)
	}
	settle(t, held, triggers.Release)
	peeked := b.open(t, func(c *Config) { c.Access = access(limited) })
	got, err = peeked.Backlog(t.Context())
	if err != nil || got.Ready < 240 || !got.AtLeast || got.More != nil {
		t.Errorf("by a look: %+v, %v", got, err)
	}
	sessions := b.open(t, func(c *Config) { c.Queue, c.Sessions = "carts", true })
	if got, err := sessions.Backlog(t.Context()); err != nil || got.Ready != 2 {
		t.Errorf("sessions: %+v, %v", got, err)
	}
	blind := b.open(t, func(c *Config) { c.Queue, c.Sessions, c.Access = "carts", true, access(limited) })
	if _, err := blind.Backlog(t.Context()); !errors.Is(err, triggers.ErrUnknown) || !strings.Contains(err.Error(), "Manage") {
		t.Errorf("sessions without Manage: %v", err)
	}
}

// One of several subscriptions is deleted: it is reported, and the others continue.
func TestSeveralSubscriptions(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	for _, err := range []error{b.CreateTopic("events"), b.CreateSubscription("events", "a", emulator.QueueOptions{}), b.CreateSubscription("events", "b", emulator.QueueOptions{})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tr := b.open(t, func(c *Config) { c.Queue, c.Topic, c.Subscriptions = "", "events", []string{"a", "b"} })
	b.sendTo(t, "events", text("1", "2", "3")...)
	seen := map[string]int{}
	for _, d := range receive(t, tr, 6) {
		seen[string(d.Message.Body)]++
		settle(t, d, triggers.Done)
	}
	if seen["1"] != 2 || seen["2"] != 2 || seen["3"] != 2 {
		t.Errorf("%v came", seen)
	}
	if err := b.Delete("events/Subscriptions/a"); err != nil {
		t.Fatal(err)
	}
	b.sendTo(t, "events", text("4", "5")...)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for n := 0; n < 2; {
		got, err := tr.Receive(ctx, 1)
		if err != nil {
			t.Fatalf("the subscription that is there suffers: %v", err)
		}
		for _, d := range got {
			settle(t, d, triggers.Done)
			n++
		}
	}
	tr.mu.Lock()
	a, other := tr.failing[tr.entities[0].address], tr.failing[tr.entities[1].address]
	tr.mu.Unlock()
	if other != nil {
		t.Errorf("%v, %v", a, other)
	}
}
