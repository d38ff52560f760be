package servicebus

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

const within = 3 * time.Minute

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
	b.wantCounts(t, emulator.Counts{})
}

func (b *bed) wantCounts(t *testing.T, want emulator.Counts) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		got, err := b.Counts("orders")
		if err != nil {
			t.Fatal(err)
		}
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there is %+v, want %+v", got, want)
		}
	}
}

func TestAConnectionThatBreaks(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, nil)
	b.send(t, text("1", "2")...)
	handling := receive(t, tr, 2)

	// While it is settled: by the lock's token, over the new connection.
	b.DropConnections()
	began := time.Now()
	settle(t, handling[0], triggers.Done)
	t.Logf("to settle took %v", time.Since(began))
	// While it receives.
	got := make(chan []*triggers.Delivery, 1)
	go func() { got <- receive(t, tr, 1) }()
	b.DropConnections()
	began = time.Now()
	b.send(t, text("3")...)
	third := <-got
	t.Logf("to receive again took %v", time.Since(began))
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
		{Config{Queue: "nowhere"}, "check the name"},
		{Config{Topic: "events", Subscriptions: []string{"billing"}}, "check the name"},
		{Config{Queue: "orders"}, "requires sessions; set sessions: true"},
	} {
		test.cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
		test.cfg.Access = access(b.ConnectionString(b.address))
		_, err := Open(t.Context(), test.cfg)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.cfg.paths()) {
			t.Errorf("%v; want that it says %q", err, test.want)
		}
	}
}

// The number of prefetched messages follows the rate, and they are released at the end.
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
		return tr.buffer.Len(), tr.rate.Ready()
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
			t.Fatal("nothing is prefetched")
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

// The server stops, and restarts after a while: with no message in flight, and with one.
func TestAServerThatRestarts(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, nil)
	b.send(t, text("1")...)
	handling := receive(t, tr, 1)[0]
	if err := b.listener.Close(); err != nil {
		t.Fatal(err)
	}
	b.DropConnections()
	settled := make(chan error, 1)
	go func() {
		for {
			err := handling.Settle(t.Context(), triggers.Verdict{Kind: triggers.Done})
			if err == nil || t.Context().Err() != nil {
				settled <- err
				return
			}
			t.Logf("settle: %v", err) // the dispatcher would try again, too
		}
	}()
	if _, err := tr.Receive(t.Context(), 1); err == nil {
		t.Error("it receives without a server")
	} else {
		t.Log(err)
	}
	l, err := net.Listen("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(l) }()
	b.send(t, text("2")...)
	settle(t, receive(t, tr, 1)[0], triggers.Done)
	if err := <-settled; err != nil {
		t.Error(err)
	}
	b.wantEmpty(t)
	if err := b.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A link that receives nothing and reports no error is detected by max_idle.
func TestAReceiverThatIsDeaf(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, func(c *Config) { c.MaxIdle = 500 * time.Millisecond })
	b.send(t, text("1")...)
	settle(t, receive(t, tr, 1)[0], triggers.Done)
	if err := b.Deafen("orders"); err != nil {
		t.Fatal(err)
	}
	b.send(t, text("2")...)
	settle(t, receive(t, tr, 1)[0], triggers.Done)
	b.wantEmpty(t)
}

// The SDK does not open its link again for a busy server.
func TestAServerThatIsBusy(t *testing.T) {
	t.Parallel()
	for _, sessions := range []bool{false, true} {
		b := start(t, emulator.QueueOptions{RequiresSession: sessions})
		tr := b.open(t, func(c *Config) { c.Sessions = sessions })
		b.send(t, triggers.Message{Body: []byte("1"), OrderingKey: "a"})
		handling := receive(t, tr, 1)[0]
		b.Busy(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := handling.Settle(ctx, triggers.Verdict{Kind: triggers.Done}); err == nil && !sessions {
			t.Error("a busy server has settled")
		}
		_, err := tr.Receive(ctx, 1)
		if err == nil {
			t.Error("a busy server has given a message")
		}
		cancel()
		b.Busy(false)
		if sessions { // it was lost with its session
			handling = receive(t, tr, 1)[0]
		}
		settle(t, handling, triggers.Done)
		b.send(t, triggers.Message{Body: []byte("2"), OrderingKey: "a"})
		settle(t, receive(t, tr, 1)[0], triggers.Done)
		b.wantEmpty(t)
	}
}

func TestAMessageThatCannotBeRead(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.QueueOptions{LockDuration: time.Second, MaxDeliveryCount: 3})
	tr := b.open(t, func(c *Config) { c.Access = access(b.limited(t)) })
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	odd := &azservicebus.AMQPAnnotatedMessage{Body: azservicebus.AMQPAnnotatedMessageBody{Sequence: [][]any{{"a", 1}}}}
	if err := s.SendAMQPAnnotatedMessage(t.Context(), odd, nil); err != nil {
		t.Fatal(err)
	}
	for _, value := range []any{"a text", []byte("some bytes"), 42} {
		if err := s.SendAMQPAnnotatedMessage(t.Context(), &azservicebus.AMQPAnnotatedMessage{Body: azservicebus.AMQPAnnotatedMessageBody{Value: value}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"a text", "some bytes"} {
		d := receive(t, tr, 1)[0]
		if string(d.Message.Body) != want {
			t.Errorf("%q came, want %q", d.Message.Body, want)
		}
		settle(t, d, triggers.Done)
	}
	b.receiveUntil(t, tr, emulator.Counts{DeadLettered: 2})
	for _, d := range b.dead(t) {
		if !strings.Contains(d.Reason, "drover reads data, and values that are bytes or a text") {
			t.Errorf("the reason is %q", d.Reason)
		}
	}
	// Bytes that are no message at all end the link; the service counts, and buries it.
	if err := b.Garble("orders", 3); err != nil {
		t.Fatal(err)
	}
	b.send(t, text("garbled")...)
	b.receiveUntil(t, tr, emulator.Counts{DeadLettered: 3})
	// One whose tag is not a lock token can be settled over its link.
	if err := b.WrongTags("orders", 1); err != nil {
		t.Fatal(err)
	}
	b.send(t, text("untagged")...)
	settle(t, receive(t, tr, 1)[0], triggers.Done)
	b.send(t, text("whole")...)
	settle(t, receive(t, tr, 1)[0], triggers.Done)
	b.wantCounts(t, emulator.Counts{DeadLettered: 3})
}

// receiveUntil keeps a Receive waiting, which must get nothing, until the counts match.
func (b *bed) receiveUntil(t *testing.T, tr triggers.Trigger, want emulator.Counts) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			got, _ := tr.Receive(ctx, 1) // the dispatcher would try again, too
			n += len(got)
		}
		ended <- n
	}()
	b.wantCounts(t, want)
	cancel()
	if n := <-ended; n > 0 {
		t.Errorf("%d messages came", n)
	}
}

// The server's clock is off by an hour, or by a little: no lock is lost because of that.
func TestClocksThatDoNotAgree(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour, 3 * time.Minute, -3 * time.Second} {
		t.Run(off.String(), func(t *testing.T) {
			t.Parallel()
			now := func() time.Time { return time.Now().Add(off) }
			b := startWith(t, emulator.Options{Now: now}, emulator.QueueOptions{LockDuration: 2 * time.Second})
			if err := b.CreateQueue("carts", emulator.QueueOptions{LockDuration: 2 * time.Second, RequiresSession: true}); err != nil {
				t.Fatal(err)
			}
			tr := b.open(t, nil)
			sessions := b.open(t, func(c *Config) { c.Queue, c.Sessions = "carts", true })
			b.send(t, text("slow")...)
			b.sendTo(t, "carts", triggers.Message{Body: []byte("slow"), OrderingKey: "a"})
			slow, kept := receive(t, tr, 1)[0], receive(t, sessions, 1)[0]
			quiet(t, tr, 5*time.Second)
			settle(t, slow, triggers.Done)
			settle(t, kept, triggers.Done)
			b.wantEmpty(t)
			for _, path := range []string{"orders", "carts"} {
				if u, err := b.Usage(path); err != nil || u.Lost > 0 || u.Leased != 1 {
					t.Errorf("%s: %+v, %v", path, u, err)
				}
			}
		})
	}
}

// quiet checks that nothing is received.
func quiet(t *testing.T, tr triggers.Trigger, wait time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if got, err := tr.Receive(ctx, 1); len(got) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d messages and %v came; nothing should", len(got), err)
	}
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	const largest = 100 << 20
	b := startWith(t, emulator.Options{MaxMessageSize: largest + 64<<10}, emulator.QueueOptions{})
	tr := b.open(t, nil)
	for _, size := range []int{256 << 10, largest} {
		body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		b.send(t, triggers.Message{Body: body})
		d := receive(t, tr, 1)[0]
		if !bytes.Equal(d.Message.Body, body) {
			t.Errorf("%d bytes came back as %d, or other ones", size, len(d.Message.Body))
		}
		settle(t, d, triggers.Done)
	}
	standard := start(t, emulator.QueueOptions{})
	s, err := NewSender(access(standard.ConnectionString(standard.address)), "orders")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), &triggers.Message{Body: make([]byte, largest)}); !errors.Is(err, triggers.ErrTooLarge) || !strings.Contains(err.Error(), "256 KiB in the standard tier") {
		t.Errorf("%v", err)
	}
	// The next one goes.
	if err := errors.Join(s.Send(t.Context(), &triggers.Message{Body: []byte("x")}), s.Flush(t.Context()), s.Close(t.Context())); err != nil {
		t.Error(err)
	}
	standard.wantCounts(t, emulator.Counts{Active: 1})
}

type lossWatcher chan struct{}

func (w lossWatcher) LeaseRevoked() { close(w) }

func TestALossIsTold(t *testing.T) {
	t.Parallel()
	for _, sessions := range []bool{false, true} {
		b := start(t, emulator.QueueOptions{LockDuration: time.Second, RequiresSession: sessions})
		tr := b.open(t, func(c *Config) { c.Sessions, c.MaxLockRenewal = sessions, time.Millisecond })
		b.send(t, triggers.Message{Body: []byte("1"), OrderingKey: "a"})
		hung := receive(t, tr, 1)[0]
		lost := make(lossWatcher)
		hung.OnRevoked(lost)
		again := receive(t, tr, 1)[0]
		if again.Message.Attempt != 1 {
			t.Errorf("attempt %d: a loss was charged", again.Message.Attempt)
		}
		select {
		case <-lost:
		case <-time.After(within):
			t.Error("the handler was not called")
		}
		// Too late, and no error, and no harm to the one that runs now.
		if err := hung.Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: time.Minute}); err != nil {
			t.Error(err)
		}
		settle(t, again, triggers.Done)
		b.wantEmpty(t)
	}
}
