package natsjs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

// broker is a server that is not drover's, and that can stop and restart.
type broker struct {
	options server.Options
	server  *server.Server
}

func startBroker(t testing.TB, change func(*server.Options)) *broker {
	t.Helper()
	b := &broker{options: server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}}
	if change != nil {
		change(&b.options)
	}
	b.start(t)
	b.options.Port = b.server.Addr().(*net.TCPAddr).Port // the same when it returns
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start(t testing.TB) {
	t.Helper()
	options := b.options
	s, err := server.NewServer(&options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the broker does not start")
	}
	b.server = s
}

func (b *broker) stop() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

func (b *broker) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", b.options.Port) }

func dialBroker(t testing.TB, cfg client.Config) *client.Connection {
	t.Helper()
	cfg.Name, cfg.Log = "test", testLog(t)
	c, err := client.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func waitState(t *testing.T, c *client.Connection, prefix string) {
	t.Helper()
	waitFor(t, "the state "+prefix, func() bool { return strings.HasPrefix(c.State(), prefix) })
}

func TestABrokerThatGoesAndReturns(t *testing.T) {
	b := startBroker(t, nil)
	c := dialBroker(t, client.Config{URLs: []string{b.url()}})
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "1", "2", "3")
	handling := receive(t, tr, 3)
	done(t, handling[0]) // its acknowledgement may be lost with the broker

	waiting := make(chan []*triggers.Delivery, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		got, err := tr.Receive(ctx, 10)
		if err != nil {
			t.Error(err)
		}
		waiting <- got
	}()
	b.stop()
	waitState(t, c, "reconnecting")
	done(t, handling[1]) // settled while the broker is away
	b.start(t)
	waitState(t, c, "connected")
	done(t, handling[2])
	send(t, c, "orders.x", "4")
	got := <-waiting
	if len(got) != 1 || string(got[0].Message.Body) != "4" {
		t.Fatalf("received %d messages; want the one that was sent after the outage", len(got))
	}
	done(t, got...)
	allAcknowledged(t, c, cfg)
	nothing(t, tr, 100*time.Millisecond)
}

// A trigger reports whether its broker can be reached, also with an ordering key.
func TestLink(t *testing.T) {
	for _, token := range []int{0, 1} {
		b := startBroker(t, nil)
		cfg := testConfig(t)
		cfg.OrderingToken = token
		tr := open(t, dialBroker(t, client.Config{URLs: []string{b.url()}}), cfg)
		wait := func(up bool, reconnects int64) {
			t.Helper()
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for deadline := time.Now().Add(patience); ; <-tick.C {
				link, known := tr.(triggers.Linked).Link()
				if known && link.Down.IsZero() == up && link.Reconnects == reconnects {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("the link is %+v, known %v; want up %v, %d reconnects", link, known, up, reconnects)
				}
			}
		}
		wait(true, 0)
		b.stop()
		wait(false, 0)
		b.start(t)
		wait(true, 1)
	}
}

func TestAConsumerThatIsDeletedAndMadeAgain(t *testing.T) {
	b := startBroker(t, nil)
	c := dialBroker(t, client.Config{URLs: []string{b.url()}})
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := tr.Receive(ctx, 1)
		failed <- err
	}()
	waitOutstanding(t, tr)
	if err := c.JetStream().DeleteConsumer(t.Context(), cfg.Stream, cfg.Consumer); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "consumer billing of stream ORDERS") {
		t.Errorf("Receive: %v", err)
	}
	send(t, c, "orders.x", "after")
	d := receive(t, tr, 1)[0] // looked up again, and made, as create says
	done(t, d)
}

func waitOutstanding(t *testing.T, tr triggers.Trigger) {
	t.Helper()
	own := tr.(*trigger)
	waitFor(t, "a request", func() bool { return look(own, own.intake.requests.outstanding) > 0 })
}

func TestNoMoreIsHeldThanThereIsRoomFor(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	cfg.AckWait, cfg.Prefetch = time.Minute, 0
	tr := open(t, c, cfg)
	bodies := make([]string, 100)
	send(t, c, "orders.x", bodies...)
	held := receive(t, tr, 3)
	if err := c.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	consumer, err := c.JetStream().Consumer(t.Context(), cfg.Stream, cfg.Consumer)
	if err != nil {
		t.Fatal(err)
	}
	if n := consumer.CachedInfo().NumAckPending; n != 3 {
		t.Errorf("%d messages are leased; three were requested", n)
	}
	done(t, held...)
}

// A server that stops when its last client disconnects has received the acknowledgements.
func TestWhatWasDoneIsTakenBeforeTheServerEnds(t *testing.T) {
	t.Parallel()
	const all, finished = 4000, 3000
	dir := t.TempDir()
	server := startServer(t, dir)
	c := connect(t, server)
	cfg := testConfig(t)
	cfg.AckWait, cfg.Prefetch = 5*time.Second, all // the remaining messages arrive then
	first := open(t, c, cfg)
	bodies := make([]string, all)
	for i := range bodies {
		bodies[i] = strconv.Itoa(i)
	}
	send(t, c, "orders.x", bodies...)
	before := make(map[string]bool)
	handled := receive(t, first, finished)
	for _, d := range handled {
		before[string(d.Message.Body)] = true
	}
	done(t, handled...)
	if err := errors.Join(first.Close(t.Context()), c.Close(), server.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	second := open(t, connect(t, startServer(t, dir)), cfg)
	rest := receive(t, second, all-finished)
	for _, d := range rest {
		if before[string(d.Message.Body)] {
			t.Fatalf("message %s was done, and is there again", d.Message.Body)
		}
	}
	done(t, rest...)
}

// TestReceivesThatAreCutOff ends Receive at every step. What it counts as requested must be
// requested, or the trigger would wait forever.
func TestReceivesThatAreCutOff(t *testing.T) {
	t.Parallel()
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	cfg.Prefetch = 8
	tr := open(t, c, cfg)
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := tr.Receive(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for i := range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Microsecond)
		got, err := tr.Receive(ctx, 1+i%7)
		cancel()
		if err == nil {
			t.Fatalf("%d messages of an empty stream", len(got))
		}
	}
	own := tr.(*trigger)
	own.mu.Lock()
	asked := 0
	if own.intake.requests.flow != nil {
		for _, r := range own.intake.requests.flow.asked {
			asked += r.messages
		}
	}
	if own.intake.requests.outstanding() != asked || asked > 8 {
		t.Errorf("%d messages are thought to be in transit, %d were requested", own.intake.requests.outstanding(), asked)
	}
	own.mu.Unlock()
	send(t, c, "orders.x", "1")
	done(t, receive(t, tr, 1)...)
}

func TestConsumersThatDoNotFit(t *testing.T) {
	b := startBroker(t, nil)
	c := dialBroker(t, client.Config{URLs: []string{b.url()}})
	fit := jetstream.ConsumerConfig{Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy, AckWait: lease, MaxDeliver: -1, FilterSubject: "orders.>"}
	if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*jetstream.ConsumerConfig)
		want   string
	}{
		"fits":              {func(*jetstream.ConsumerConfig) {}, ""},
		"max deliver above": {func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 6 }, ""},
		"ack policy":        {func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckAllPolicy }, "its ack policy is"},
		"ack wait":          {func(c *jetstream.ConsumerConfig) { c.AckWait = time.Minute }, "its ack wait is 1m0s and ack_wait here is 4s"},
		"max deliver":       {func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 }, "its max_deliver is 5 and must be above retry.max_attempts (5)"},
		"back-off":          {func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 9; c.BackOff = []time.Duration{time.Second} }, "it has a backoff"},
		"pinned client": {func(c *jetstream.ConsumerConfig) {
			c.PriorityPolicy, c.PriorityGroups, c.PinnedTTL = jetstream.PriorityPolicyPinned, []string{"one"}, time.Minute
		}, "it has priority groups (one)"},
		"overflow": {func(c *jetstream.ConsumerConfig) {
			c.PriorityPolicy, c.PriorityGroups = jetstream.PriorityPolicyOverflow, []string{"two"}
		}, "it has priority groups (two)"},
		"filter": {func(c *jetstream.ConsumerConfig) { c.FilterSubject = "orders.new" }, "it consumes orders.new and subject here is orders.>"},
	} {
		t.Run(name, func(t *testing.T) {
			have := fit
			test.change(&have)
			if _, err := c.JetStream().CreateOrUpdateConsumer(t.Context(), "ORDERS", have); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.JetStream().DeleteConsumer(context.Background(), "ORDERS", "billing") }()
			cfg := testConfig(t)
			cfg.Create = false
			tr, err := Open(t.Context(), c, cfg)
			if err == nil {
				_ = tr.Close(t.Context())
			}
			if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
	t.Run("push consumer", func(t *testing.T) {
		if _, err := c.JetStream().CreatePushConsumer(t.Context(), "ORDERS", jetstream.ConsumerConfig{Durable: "billing", DeliverSubject: "x", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), c, testConfig(t)); err == nil || !strings.Contains(err.Error(), "is a push consumer") {
			t.Errorf("%v", err)
		}
	})
	for name, test := range map[string]struct{ stream, want string }{
		"no consumer": {"ORDERS", "does not exist; create it, or set create: true"},
		"no stream":   {"NOWHERE", "stream NOWHERE does not exist; create it, or set create: true"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Create, cfg.Stream, cfg.Consumer = false, test.stream, "nobody"
			if _, err := Open(t.Context(), c, cfg); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestNoStreamTakesIt(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	s := c.NewSender()
	if err := errors.Join(s.Send(t.Context(), &triggers.Message{Subject: "nobody"}), s.Flush(t.Context())); !errors.Is(err, client.ErrNoStream) {
		t.Errorf("%v", err)
	}
	if err := c.NewSender().Send(t.Context(), &triggers.Message{Subject: "x", Attributes: map[string]string{"ü": "x"}}); err == nil || !strings.Contains(err.Error(), "cannot be the name of a header") {
		t.Errorf("%v", err)
	}
}

// TestAFullDisk fills a real file system of 24 MiB, and then enlarges it: the server continues by
// itself, with everything that it had accepted, at the same address.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", dir).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("cannot mount: %v: %s", err, out)
		}
		t.Skipf("needs the right to mount: sudo go test -run TestAFullDisk ./triggers/natsjs (%v: %s)", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	e, err := embedded.Start(t.Context(), embedded.Config{Dir: filepath.Join(dir, "nats"), Listen: "127.0.0.1:0", Sync: time.Minute, MaxStore: 1 << 30, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	url := e.ClientURL()
	c, err := client.ConnectInProcess(t.Context(), e, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "in flight")
	handling := receive(t, tr, 1)[0]
	s := c.NewSender()
	full := error(nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for full == nil {
		if full = s.Send(ctx, &triggers.Message{Subject: "orders.x", Body: make([]byte, 256<<10)}); full == nil {
			full = s.Flush(ctx)
		}
	}
	if ctx.Err() != nil || s.ConfirmedCount() == 0 {
		t.Fatalf("after %d messages: %v", s.ConfirmedCount(), full)
	}
	waitFor(t, "the server to report its disk", func() bool { return e.Err() != nil })
	if !strings.Contains(e.Err().Error(), "free space") {
		t.Errorf("%v", e.Err())
	}
	if out, err := exec.Command("mount", "-o", "remount,size=128m", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	waitFor(t, "the server to work where there is space again", func() bool { return e.Err() == nil })
	if now := e.ClientURL(); now != url {
		t.Errorf("the server was at %s and is at %s now", url, now)
	}
	done(t, handling)
	got := receive(t, tr, int(s.ConfirmedCount())) // all that was accepted
	done(t, got...)
	send(t, c, "orders.x", "after")
	if after := receive(t, tr, 1)[0]; string(after.Message.Body) != "after" {
		t.Errorf("%d bytes came, and not what was sent after", len(after.Message.Body))
	} else {
		done(t, after)
	}
	if err := errors.Join(tr.Close(t.Context()), c.Close(), e.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}
