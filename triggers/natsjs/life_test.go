package natsjs

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
)

// recreate deletes the stream, and creates one with the same name.
func recreate(t *testing.T, c *client.Connection, cfg Config) {
	t.Helper()
	if err := c.JetStream().DeleteStream(t.Context(), cfg.Stream); err != nil {
		t.Fatal(err)
	}
	if _, _, err := consumers.Open(t.Context(), c.JetStream(), cfg.Config, cfg.Log); err != nil {
		t.Fatal(err)
	}
}

// receiveLater waits for n messages, and ignores errors until then.
func receiveLater(t *testing.T, tr triggers.Trigger, n int) (out []*triggers.Delivery) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(out) < n {
		got, err := tr.Receive(ctx, n-len(out))
		if ctx.Err() != nil {
			t.Fatalf("received %d of %d, then: %v", len(out), n, err)
		}
		out = append(out, got...)
	}
	return out
}

func waitLost(t *testing.T, ds ...*triggers.Delivery) {
	t.Helper()
	for _, d := range ds {
		waitFor(t, "the loss of message "+d.Message.ID+", whose stream is gone", d.IsRevoked)
	}
}

func pending(t *testing.T, c *client.Connection, cfg Config) int {
	t.Helper()
	consumer, err := c.JetStream().Consumer(t.Context(), cfg.Stream, cfg.Consumer)
	if err != nil {
		t.Fatal(err)
	}
	return consumer.CachedInfo().NumAckPending
}

func TestDeadLettersOfAStreamThatIsRecreated(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	for i, body := range []string{"first life", "second life"} {
		if i > 0 {
			recreate(t, c, cfg)
		}
		send(t, c, "orders.x", body)
		settle(t, receiveLater(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Reject, Reason: "bad"})
	}
	dead := deadLetters(t, c, cfg.DeadLetters)
	if len(dead) != 2 || string(dead[0].Data) != "first life" || string(dead[1].Data) != "second life" {
		t.Fatalf("%d dead letters, want those of both streams", len(dead))
	}
}

// A recreated consumer delivers its messages again: they are dead-lettered again, also after the
// earlier dead letters were removed.
func TestDeadLettersThatTheServerTakesForDuplicates(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "bad")
	d := receive(t, tr, 1)[0]
	l := leaseOf(t, tr, d)
	bury := func() {
		t.Helper()
		if err := l.settler.bury(t.Context(), l, d.Message, triggers.Verdict{Kind: triggers.Reject, Reason: "bad"}); err != nil {
			t.Fatal(err)
		}
	}
	bury()
	bury() // as after a crash between the copy and the end of the original
	dead := deadLetters(t, c, cfg.DeadLetters)
	if len(dead) != 1 {
		t.Fatalf("%d dead letters of one message", len(dead))
	}
	stream, err := c.JetStream().Stream(t.Context(), cfg.DeadLetters)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), dead[0].Sequence); err != nil {
		t.Fatal(err)
	}
	bury()
	if m, err := stream.GetLastMsgForSubject(t.Context(), cfg.DeadLetters+".orders.x"); err != nil || string(m.Data) != "bad" {
		t.Fatalf("the dead letter is nowhere: %v", err)
	}
	done(t, d)
}

func leaseOf(t *testing.T, tr triggers.Trigger, d *triggers.Delivery) *leasedMessage {
	t.Helper()
	own := tr.(*trigger)
	own.mu.Lock()
	defer own.mu.Unlock()
	for l := range own.settler.leases.all() {
		if &l.Delivery == d {
			return l
		}
	}
	t.Fatal("there is no such lease")
	return nil
}

// A broker that loses its data reuses the old sequence numbers for new messages.
func TestRetriesAfterTheServerLostItsStream(t *testing.T) {
	b := startBroker(t, nil)
	c := dialBroker(t, client.Config{URLs: []string{b.url()}})
	cfg := testConfig(t)
	inMemory := func() {
		if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: cfg.Stream, Subjects: []string{cfg.Subject}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.MemoryStorage}); err != nil {
			t.Fatal(err)
		}
	}
	inMemory()
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "old 1", "old 2", "old 3")
	done(t, receive(t, tr, 2)...)
	old := receive(t, tr, 1)
	b.stop()
	waitState(t, c, "reconnecting")
	done(t, old...) // settled while the server is away
	b.start(t)
	waitState(t, c, "connected")
	for deadline := time.Now().Add(patience); ; { // drover makes it, too
		if _, err := c.JetStream().Stream(t.Context(), cfg.Stream); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the stream is not made again")
		}
		if got, err := receiveBriefly(t, tr); err == nil {
			t.Fatalf("received %d messages of a stream that was lost", len(got))
		}
	}
	send(t, c, "orders.x", "new 1", "new 2", "new 3", "new 4", "new 5")
	for _, d := range receiveLater(t, tr, 5) {
		settle(t, d, triggers.Verdict{Kind: triggers.Retry, Delay: 10 * time.Millisecond})
	}
	for _, d := range receiveLater(t, tr, 5) {
		if d.Message.Attempt != 2 {
			t.Errorf("%q has attempt %d", d.Message.Body, d.Message.Attempt)
		}
		done(t, d)
	}
	allAcknowledged(t, c, cfg)
}

func receiveBriefly(t *testing.T, tr triggers.Trigger) ([]*triggers.Delivery, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	return tr.Receive(ctx, 1)
}

// Messages from a stream that has since been recreated settle nothing in the new one, with any
// verdict.
func TestAnOldCallSettlesNoNewMessage(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(t *testing.T, c *client.Connection, cfg Config){
		"stream": recreate,
		"consumer": func(t *testing.T, c *client.Connection, cfg Config) {
			if err := c.JetStream().DeleteConsumer(t.Context(), cfg.Stream, cfg.Consumer); err != nil {
				t.Fatal(err)
			}
			if _, _, err := consumers.Open(t.Context(), c.JetStream(), cfg.Config, cfg.Log); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := startServer(t, t.TempDir())
			c := connect(t, server)
			cfg := testConfig(t)
			cfg.Prefetch, cfg.AckWait = 0, 30*time.Second
			tr := open(t, c, cfg)
			send(t, c, "orders.x", "old 1", "old 2", "old 3", "old 4")
			old := receive(t, tr, 4)
			again(t, c, cfg)
			if name == "stream" {
				send(t, c, "orders.x", "new 1", "new 2", "new 3", "new 4")
			}
			other := open(t, connect(t, server), cfg)
			fresh := receiveLater(t, other, 4)
			waitLost(t, old...)
			for i, kind := range []triggers.Kind{triggers.Done, triggers.Retry, triggers.Release, triggers.Reject} {
				settle(t, old[i], triggers.Verdict{Kind: kind, Reason: "old"})
			}
			own := tr.(*trigger)
			own.settler.acks.barrier(t.Context()) // all is sent that will be
			if err := errors.Join(own.conn.Conn().Flush(), other.(*trigger).conn.Conn().Flush()); err != nil {
				t.Fatal(err)
			}
			if n := pending(t, c, cfg); n != 4 {
				t.Errorf("%d of the 4 new messages are in flight at the server: old calls have settled some", n)
			}
			for _, d := range fresh {
				if d.Message.Attempt != 1 || d.IsRevoked() {
					t.Errorf("new message %s: attempt %d, lost %v", d.Message.ID, d.Message.Attempt, d.IsRevoked())
				}
			}
			done(t, fresh...)
			allAcknowledged(t, c, cfg)
		})
	}
}

// Attempts of messages of an earlier stream or consumer do not count for new messages with the same
// sequence numbers.
func TestAttemptsOfAnEarlierLife(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	for i, again := range []func(){
		func() {},
		func() { recreate(t, c, cfg) },
		func() {
			if err := c.JetStream().DeleteConsumer(t.Context(), cfg.Stream, cfg.Consumer); err != nil {
				t.Fatal(err)
			}
		},
	} {
		again()
		if i < 2 {
			send(t, c, "orders.x", strconv.Itoa(i))
		}
		for attempt := 1; attempt <= 3; attempt++ {
			d := receiveLater(t, tr, 1)[0]
			if d.Message.Attempt != attempt {
				t.Errorf("life %d: attempt %d, want %d", i, d.Message.Attempt, attempt)
			}
			settle(t, d, triggers.Verdict{Kind: triggers.Retry})
		}
	}
}

// Messages that arrive while the stream and the consumer are looked up do not mean that they were
// recreated: the answer is older than the messages.
func TestMessagesThatComeDuringTheLookUp(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	opened := open(t, c, cfg)
	send(t, c, "orders.x", "before")
	first := receiveLater(t, opened, 1)[0]
	own := opened.(*trigger)
	reconnects, highest := c.Conn().Stats().Reconnects, own.intake.seen()
	stream, consumer, err := consumers.Open(t.Context(), c.JetStream(), cfg.Config, cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	send(t, c, "orders.x", "meanwhile")
	second := receiveLater(t, opened, 1)[0]
	own.keeper.adopt(stream, consumer, reconnects, highest)
	for _, d := range []*triggers.Delivery{first, second} {
		if d.IsRevoked() {
			t.Errorf("message %s is lost", d.Message.ID)
		}
		settle(t, d, triggers.Verdict{Kind: triggers.Done})
	}
}
