package natsjs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
	"github.com/drover-run/drover/triggers/natsjs/ledger"
)

// ordered is a configuration in which the second token of the subject is the ordering key.
func ordered(t testing.TB) Config {
	cfg := testConfig(t)
	cfg.OrderingToken = 2
	return cfg
}

// openOrdered opens a trigger that keeps order, and also returns its internals.
func openOrdered(t testing.TB, c *client.Connection, cfg Config) (outer triggers.Trigger, inner *trigger) {
	t.Helper()
	inner = newTrigger(c, cfg)
	if err := inner.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	outer = triggers.Ordered(inner)
	t.Cleanup(func() { _ = outer.Close(context.Background()) })
	return outer, inner
}

// strand makes messages 0 to n-1 of one key be delivered to an instance that crashes.
func strand(t *testing.T, server *embedded.Server, cfg Config, n int) {
	t.Helper()
	c := connect(t, server)
	cfg.Prefetch = n
	tr, inner := openOrdered(t, c, cfg)
	bodies := make([]string, n)
	for i := range bodies {
		bodies[i] = strconv.Itoa(i)
	}
	send(t, c, "orders.a", bodies...)
	receive(t, tr, 1)
	waitFor(t, "delivery", func() bool { return look(inner, func() int { return inner.settler.leases.n }) == n })
	crash(t, c, tr)
}

func look(t *trigger, what func() int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return what()
}

// wantOrder receives n messages one at a time, starting with the first.
func wantOrder(t *testing.T, tr triggers.Trigger, n int) {
	t.Helper()
	for i := range n {
		d := receive(t, tr, 1)[0]
		if string(d.Message.Body) != strconv.Itoa(i) {
			t.Fatalf("message %s came when it was the turn of %d", d.Message.Body, i)
		}
		done(t, d)
	}
}

// A message with an earlier delivery has arrived, and its failures are still being looked up: later
// ones wait for it.
func TestOrderWhileFailuresAreLookedUp(t *testing.T) {
	t.Parallel()
	server := startServer(t, t.TempDir())
	cfg := ordered(t)
	cfg.AckWait = 2 * time.Second
	strand(t, server, cfg, 2)
	c := connect(t, server)
	tr, inner := openOrdered(t, c, cfg)
	release := make(chan struct{})
	look(inner, func() int {
		read := inner.intake.readFailures
		inner.intake.readFailures = func(ctx context.Context, m ledger.Message, deliveries uint64) int {
			<-release
			return read(ctx, m, deliveries)
		}
		return 0
	})
	send(t, c, "orders.a", "2")
	waitFor(t, "look-ups", func() bool { return look(inner, func() int { return inner.intake.looking }) == 2 })
	nothing(t, tr, 5*strayPace)
	close(release)
	wantOrder(t, tr, 3)
}

// A message that was delivered after the server counted does not replace one that is missing.
func TestMissingMessagesAreNotMistaken(t *testing.T) {
	t.Parallel()
	server := startServer(t, t.TempDir())
	cfg := ordered(t)
	strand(t, server, cfg, 1)
	c := connect(t, server)
	tr, inner := openOrdered(t, c, cfg)
	counted := mustConsumer(t, c, cfg).CachedInfo()
	send(t, c, "orders.a", "1")
	waitFor(t, "message 1", func() bool { return look(inner, func() int { return inner.settler.leases.n }) == 1 })
	if n := look(inner, func() int { return inner.intake.countMissing(counted) }); n != 1 {
		t.Errorf("%d messages are missing, want 1", n)
	}
	wantOrder(t, tr, 2)
}

// The time in which a process did not run does not count as waiting.
func TestOrderAfterAStandstill(t *testing.T) {
	t.Parallel()
	server := startServer(t, t.TempDir())
	cfg := ordered(t)
	cfg.AckWait = 2 * time.Second
	strand(t, server, cfg, 40)
	c := connect(t, server)
	tr, inner := openOrdered(t, c, cfg)
	send(t, c, "orders.a", "40")
	waitFor(t, "message 40", func() bool { return look(inner, func() int { return inner.settler.leases.n }) >= 1 }) // more, if the others were redelivered meanwhile
	inner.mu.Lock()
	time.Sleep(cfg.AckWait + 3*time.Second) // the time is the subject: nothing runs for longer than the wait would take
	inner.mu.Unlock()
	wantOrder(t, tr, 41)
}

// Messages in flight at another instance do not block the others forever.
func TestMessagesInFlightElsewhere(t *testing.T) {
	t.Parallel()
	server := startServer(t, t.TempDir())
	cfg := ordered(t)
	cfg.AckWait, cfg.Prefetch = 2*time.Second, 0
	first, _ := openOrdered(t, connect(t, server), cfg)
	c := connect(t, server)
	send(t, c, "orders.a", "0")
	d := receive(t, first, 1)[0]
	second, _ := openOrdered(t, c, cfg)
	send(t, c, "orders.b", "1")
	if got := receive(t, second, 1)[0]; string(got.Message.Body) != "1" {
		t.Errorf("received %q", got.Message.Body)
	} else {
		done(t, got)
	}
	done(t, d)
}

// The number of requested messages while some are missing.
func TestRequestsForMissingMessages(t *testing.T) {
	now := time.Now()
	before, after := now.Add(time.Minute), now.Add(-time.Minute)
	later := make([]*leasedMessage, maxKept)
	for _, test := range []struct {
		s       strays
		missing int
		want    int
	}{
		{strays{due: before}, 0, 0},
		{strays{due: before}, 9, 1},
		{strays{due: before, asked: 1, arrived: 1}, 9, 2},            // it brought a missing one
		{strays{due: before, asked: 4, arrived: 9, before: 5}, 5, 5}, // twice as many are not missing
		{strays{due: before, asked: 4, arrived: 8, before: 5}, 5, 1}, // it brought a later one
		{strays{due: before, kept: later}, 9, 0},
		{strays{due: after, kept: later}, 9, 1},
	} {
		if got := test.s.next(test.missing, now); got != test.want {
			t.Errorf("%+v, %d missing: asks for %d, want %d", fmt.Sprint(len(test.s.kept), test.s.asked, test.s.arrived), test.missing, got, test.want)
		}
	}
}

// Messages that were received but not started are released at Close. They are not delivered to the
// same instance again, because max_deliver would count that.
func TestAnOrderedCloseReceivesNothingAgain(t *testing.T) {
	server := startServer(t, t.TempDir())
	c := connect(t, server)
	cfg := ordered(t)
	cfg.AckWait, cfg.Prefetch = time.Minute, 20
	tr, inner := openOrdered(t, c, cfg)
	var bodies []string
	for i := range 10 {
		bodies = append(bodies, strconv.Itoa(i))
	}
	send(t, c, "orders.a", bodies...)
	done(t, receive(t, tr, 1)...)
	second := receive(t, tr, 1)[0]
	waitFor(t, "delivery", func() bool { return look(inner, func() int { return int(inner.intake.requests.arrivals) }) == 10 })
	waitOutstanding(t, inner)
	settle(t, second, triggers.Verdict{Kind: triggers.Release})
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info := mustConsumer(t, c, cfg).CachedInfo(); info.Delivered.Consumer != 10 {
		t.Errorf("%d deliveries of 10 messages", info.Delivered.Consumer)
	}
	next, _ := openOrdered(t, connect(t, server), cfg)
	var got []string
	for range 9 { // long before the minute is over
		d := receive(t, next, 1)[0]
		got = append(got, string(d.Message.Body))
		done(t, d)
	}
	if !slices.Equal(got, bodies[1:]) {
		t.Errorf("received %v", got)
	}
}

// After an outage nothing is delivered before lost messages are known, because one may precede
// those that arrive.
func TestOrderAfterAnOutage(t *testing.T) {
	t.Parallel()
	server := startServer(t, t.TempDir())
	c := connect(t, server)
	cfg := ordered(t)
	tr, inner := openOrdered(t, c, cfg)
	send(t, c, "orders.a", "0")
	if _, err := mustConsumer(t, c, cfg).Next(); err != nil { // it stands for a delivery that is lost
		t.Fatal(err)
	}
	received := make(chan []*triggers.Delivery, 1)
	go func() {
		got, _ := tr.Receive(t.Context(), 1)
		received <- got
	}()
	waitOutstanding(t, inner)
	look(inner, func() int { inner.checked = unverified; return 0 })
	send(t, c, "orders.a", "1")
	select {
	case got := <-received:
		if len(got) != 1 || string(got[0].Message.Body) != "0" {
			t.Fatalf("received %d messages, the first is not 0", len(got))
		}
		done(t, got...)
	case <-time.After(patience):
		t.Fatal("nothing was received")
	}
	if d := receive(t, tr, 1)[0]; string(d.Message.Body) != "1" {
		t.Errorf("received %q", d.Message.Body)
	} else {
		done(t, d)
	}
}

// Repeated requests use the existing subscription: messages of two subscriptions would overtake
// each other.
func TestOneSubscriptionWhereOrderCounts(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	tr, inner := openOrdered(t, c, ordered(t))
	go func() {
		if got, _ := tr.Receive(t.Context(), 1); len(got) > 0 {
			_ = got[0].Settle(t.Context(), triggers.Verdict{Kind: triggers.Done})
		}
	}()
	requests := func() int { return look(inner, func() int { return int(inner.intake.requests.made) }) }
	waitOutstanding(t, inner)
	inner.mu.Lock()
	before := inner.intake.requests.flow
	inner.mu.Unlock()
	inner.intake.requests.renewAll()
	waitFor(t, "another request", func() bool { return requests() == 2 })
	inner.mu.Lock()
	defer inner.mu.Unlock()
	if inner.intake.requests.flow != before || inner.intake.requests.flow.outstanding != 1 {
		t.Errorf("another subscription: %v; %d messages are outstanding, want 1", inner.intake.requests.flow != before, inner.intake.requests.flow.outstanding)
	}
}

// A server counts as silent after two heartbeats without data, regardless of how often and how late
// this is checked.
func TestSilence(t *testing.T) {
	start := time.Now()
	tr := &requests{flow: &flow{outstanding: 1}}
	for _, look := range []struct {
		after time.Duration
		heard bool
		want  bool
	}{
		{0, true, false},
		{time.Millisecond, false, false}, // two ticks that waited come together
		{2*heartbeat - 1, false, false},
		{2 * heartbeat, false, true},
		{2 * heartbeat, true, false},
		{4*heartbeat - 1, false, false},
		{4 * heartbeat, false, true},
	} {
		if look.heard {
			tr.flow.signs++
		}
		if got := tr.areSilent(start.Add(look.after)); got != look.want {
			t.Errorf("after %v: silent %v", look.after, got)
		}
	}
}

// Requests are repeated and connections are lost while messages arrive: the order is kept.
func TestOrderWhileRequestsAreMadeAgain(t *testing.T) {
	t.Parallel()
	for name, disturb := range map[string]func(t *testing.T, inner *trigger){
		"silence": func(_ *testing.T, inner *trigger) { inner.intake.requests.renewAll() },
		"reconnect": func(t *testing.T, inner *trigger) {
			if err := inner.conn.Conn().ForceReconnect(); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := startServer(t, t.TempDir())
			cfg := ordered(t)
			cfg.AckWait, cfg.Prefetch = 2*time.Second, 50
			tr, inner := openOrdered(t, connect(t, server), cfg)
			const messages, pause = 4000, 100
			next := 0
			for part := range messages / pause {
				bodies := make([]string, pause)
				for i := range bodies {
					bodies[i] = strconv.Itoa(part*pause + i)
				}
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					send(t, connect(t, server), "orders.a", bodies...)
				}()
				if part%4 == 0 {
					disturb(t, inner)
				}
				for next < (part+1)*pause {
					d := receive(t, tr, 1)[0]
					n, _ := strconv.Atoi(string(d.Message.Body))
					if n > next {
						t.Fatalf("message %d came when it was the turn of %d", n, next)
					}
					next = max(next, n+1)
					done(t, d)
				}
				<-sent
			}
		})
	}
}
