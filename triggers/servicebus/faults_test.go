package servicebus

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

const within = 30 * time.Second

func receive(t *testing.T, tr triggers.Trigger, n int) (all []*triggers.Delivery) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for len(all) < n {
		got, err := tr.Receive(ctx, n-len(all))
		if err != nil {
			if ctx.Err() != nil {
				t.Fatalf("after %d of %d messages: %v", len(all), n, err)
			}
			t.Logf("receive: %v", err) // the dispatcher would try again, too
		}
		all = append(all, got...)
	}
	return all
}

func settle(t *testing.T, d *triggers.Delivery, kind triggers.Kind) {
	t.Helper()
	if err := d.Settle(t.Context(), triggers.Verdict{Kind: kind}); err != nil {
		t.Errorf("%s: %v", d.Message.Body, err)
	}
}

func text(bodies ...string) (out []triggers.Message) {
	for _, b := range bodies {
		out = append(out, triggers.Message{Body: []byte(b)})
	}
	return out
}

func (b *bed) wantEmpty(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		got, err := b.Counts("orders")
		if err != nil {
			t.Fatal(err)
		}
		if got == (emulator.Counts{}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %+v", got)
		}
	}
}

func TestAConnectionThatBreaks(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, nil)
	b.send(t, text("1", "2")...)
	handling := receive(t, tr, 2)

	// While it is settled: by the lock's token, over the new connection.
	b.DropConnections()
	began := time.Now()
	settle(t, handling[0], triggers.Done)
	t.Logf("to settle took %v", time.Since(began))
	if took := time.Since(began); took > linkLimit+settleLimit {
		t.Errorf("to settle took %v", took)
	}
	// While it receives.
	got := make(chan []*triggers.Delivery, 1)
	go func() { got <- receive(t, tr, 1) }()
	b.DropConnections()
	began = time.Now()
	b.send(t, text("3")...)
	third := <-got
	t.Logf("to receive again took %v", time.Since(began))
	if took := time.Since(began); took > within/2 {
		t.Errorf("to receive again took %v", took)
	}
	if string(third[0].Message.Body) != "3" || third[0].Message.Attempt != 1 {
		t.Errorf("%s, attempt %d, came", third[0].Message.Body, third[0].Message.Attempt)
	}
	settle(t, third[0], triggers.Done)
	began = time.Now()
	settle(t, handling[1], triggers.Done)
	t.Logf("to settle one of an earlier connection took %v", time.Since(began))
	b.wantEmpty(t)
}

func TestALinkThatIsDetached(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, nil)
	b.send(t, text("1")...)
	first := receive(t, tr, 1)[0]
	if err := b.DetachReceivers("orders"); err != nil {
		t.Fatal(err)
	}
	b.send(t, text("2")...)
	second := receive(t, tr, 1)[0]
	if string(second.Message.Body) != "2" {
		t.Errorf("%s came", second.Message.Body)
	}
	settle(t, first, triggers.Done)
	settle(t, second, triggers.Done)
	b.wantEmpty(t)
}

func TestALockThatIsLost(t *testing.T) {
	b := start(t, emulator.QueueOptions{LockDuration: time.Second})
	tr := b.open(t, func(c *Config) { c.MaxLockRenewal = time.Millisecond })
	b.send(t, text("1")...)
	hung := receive(t, tr, 1)[0]
	again := receive(t, tr, 1)[0] // when the lock has ended
	if again.Message.Attempt != 1 {
		t.Errorf("attempt %d: a lost lock was charged", again.Message.Attempt)
	}
	settle(t, hung, triggers.Done) // too late, and no error
	settle(t, again, triggers.Done)
	b.wantEmpty(t)
}

func TestADelayThatAStopCutsShort(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, nil)
	b.send(t, text("1")...)
	d := receive(t, tr, 1)[0]
	if err := d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := b.open(t, nil)
	if again := receive(t, other, 1)[0]; again.Message.Attempt != 2 {
		t.Errorf("attempt %d; want 2: the failure is kept", again.Message.Attempt)
	}
}

func TestEntitiesThatAreNotThere(t *testing.T) {
	b := start(t, emulator.QueueOptions{RequiresSession: true})
	for _, test := range []struct {
		cfg  Config
		want string
	}{
		{Config{Queue: "nowhere"}, "is the name right, and is it made?"},
		{Config{Topic: "events", Subscriptions: []string{"billing"}}, "is the name right, and is it made?"},
		{Config{Queue: "orders"}, "requires sessions; set sessions: true"},
	} {
		test.cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
		test.cfg.Access = access(b.ConnectionString(b.address))
		_, err := Open(t.Context(), test.cfg)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.cfg.path()) {
			t.Errorf("%v; want that it says %q", err, test.want)
		}
	}
}

// What is held ready follows the rate, and is given back at the end.
func TestThePrefetch(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	all := make([]triggers.Message, 600)
	for i := range all {
		all[i].Body = []byte("x")
	}
	b.send(t, all...)
	tr := b.open(t, nil)
	held := func() (held, ready int) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.held), tr.ready
	}
	first := receive(t, tr, 1)[0]
	if n, ready := held(); n+ready > 0 {
		t.Errorf("%d are held and %d wanted before anything was settled", n, ready)
	}
	settle(t, first, triggers.Done)
	for range 128 {
		settle(t, receive(t, tr, 1)[0], triggers.Done)
	}
	deadline := time.Now().Add(within)
	for n, _ := held(); n == 0; n, _ = held() {
		if time.Now().After(deadline) {
			t.Fatal("nothing is held ready")
		}
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// At once, not when the locks end.
	if got, err := b.Counts("orders"); err != nil || got != (emulator.Counts{Active: 600 - 129}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRightsThatAreMissing(t *testing.T) {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	e := emulator.New(emulator.Options{Keys: []emulator.Key{{Name: "send", Key: "s3nd", Send: true}, {Name: "listen", Key: "l1sten", Listen: true}}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- e.Serve(l) }()
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	if err := e.CreateQueue("orders", emulator.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	send := e.ConnectionString(l.Addr().String())
	listen := strings.NewReplacer("Name=send", "Name=listen", "s3nd", "l1sten").Replace(send)
	wrong := strings.Replace(listen, "l1sten", "hunter2", 1)

	tr, err := Open(t.Context(), Config{Access: access(listen), Queue: "orders", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for name, connection := range map[string]string{"only Send": send, "a wrong key": wrong} {
		_, err := Open(t.Context(), Config{Access: access(connection), Queue: "orders", Log: log})
		if err == nil || !strings.Contains(err.Error(), "needs the right Listen") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
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
}
