package natsjs

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease/record"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

// noLock is an ack wait that ends in no test: only what is released comes again.
const noLock = time.Hour

// killable is a daemon that can be killed: a connection, a record of leases, and a trigger.
type killable struct {
	triggers.Trigger
	inner  *trigger
	conn   *client.Connection
	record *record.Record
}

// startKillable starts a daemon over a data directory. The server is embedded, or in another process as
// far as the trigger knows.
func startKillable(t *testing.T, server *embedded.Server, remote bool, dir string, cfg Config) *killable {
	t.Helper()
	k := &killable{conn: connect(t, server)}
	var err error
	if remote {
		k.conn, err = client.Connect(t.Context(), client.Config{URLs: []string{server.ClientURL()}, Token: server.Token(), Log: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = k.conn.Close() })
	}
	if k.record, err = record.Open(filepath.Join(dir, "leases"), testLog(t)); err != nil {
		t.Fatal(err)
	}
	cfg.Record = k.record
	if cfg.OrderingToken > 0 {
		k.Trigger, k.inner = openOrdered(t, k.conn, cfg)
	} else {
		k.Trigger = open(t, k.conn, cfg)
	}
	return k
}

// kill ends a daemon as kill -9 does after its leases were recorded. Its trigger is closed later, when it
// can change nothing any more.
func (k *killable) kill(t *testing.T) {
	t.Helper()
	_ = k.conn.Close()
	if err := k.record.Close(); err != nil {
		t.Fatal(err)
	}
}

// end stops a daemon.
func (k *killable) end(t *testing.T) {
	t.Helper()
	if err := k.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := k.record.Close(); err != nil {
		t.Error(err)
	}
}

func onBothServers(t *testing.T, test func(t *testing.T, server *embedded.Server, remote bool)) {
	for name, remote := range map[string]bool{"embedded": false, "remote": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, startServer(t, t.TempDir()), remote)
		})
	}
}

// What was in flight when a daemon was killed comes to the next one long before its lock ends, in order and
// without an attempt. A message that was settled does not come, and one that waits for its retry waits on.
func TestMessagesOfAKilledDaemon(t *testing.T) {
	t.Parallel()
	onBothServers(t, func(t *testing.T, server *embedded.Server, remote bool) {
		cfg, dir := testConfig(t), t.TempDir()
		cfg.AckWait = noLock
		first := startKillable(t, server, remote, dir, cfg)
		send(t, first.conn, "orders.x", "settled", "0", "retried", "1", "2")
		held := receive(t, first, 5)
		done(t, held[0])
		settle(t, held[2], triggers.Verdict{Kind: triggers.Retry, Delay: noLock})
		waitFor(t, "the settlements", func() bool { return first.conn.Conn().Flush() == nil && pending(t, first.conn, cfg) == 4 })
		first.kill(t)

		began := time.Now()
		next := startKillable(t, server, remote, dir, cfg)
		wantBodies(t, next, 3, 1)
		t.Logf("received %v after the start", time.Since(began))
		next.end(t)
		last := startKillable(t, server, remote, dir, cfg)
		send(t, last.conn, "orders.x", "0")
		wantBodies(t, last, 1, 1) // it comes first: nothing else was released
		last.end(t)
	})
}

// wantBodies receives messages with the bodies 0 to n-1, in this order, at an attempt.
func wantBodies(t *testing.T, tr triggers.Trigger, n, attempt int) {
	t.Helper()
	for i, d := range receive(t, tr, n) {
		if string(d.Message.Body) != strconv.Itoa(i) || d.Message.Attempt != attempt {
			t.Errorf("message %d: %s at attempt %d", i, d.Message.Body, d.Message.Attempt)
		}
		done(t, d)
	}
}

// The order of a key is kept: what was in flight comes before what waited.
func TestOrderOfAKilledDaemon(t *testing.T) {
	t.Parallel()
	onBothServers(t, func(t *testing.T, server *embedded.Server, remote bool) {
		cfg, dir := ordered(t), t.TempDir()
		cfg.AckWait, cfg.Prefetch = noLock, 10
		first := startKillable(t, server, remote, dir, cfg)
		send(t, first.conn, "orders.a", "0", "1", "2", "3")
		receive(t, first, 1) // the others are prefetched
		waitFor(t, "the prefetch", func() bool { return look(first.inner, func() int { return first.inner.settler.leases.n }) == 4 })
		first.kill(t)
		next := startKillable(t, server, remote, dir, cfg)
		send(t, next.conn, "orders.a", "4")
		wantOrder(t, next, 5)
		next.end(t)
	})
}

// A stream that was recreated has other messages with the same numbers. Another receiver has them, so they
// are not released. Nor is a message whose lease may have expired.
func TestLeasesOfAnotherReceiver(t *testing.T) {
	t.Parallel()
	for name, expired := range map[string]bool{"recreated": false, "expired": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startServer(t, t.TempDir())
			cfg, dir := testConfig(t), t.TempDir()
			cfg.Prefetch = 0
			if !expired {
				cfg.AckWait = noLock
			}
			killed := startKillable(t, server, true, dir, cfg)
			send(t, killed.conn, "orders.x", "0")
			receive(t, killed, 1)
			killed.kill(t)
			living := startKillable(t, server, true, t.TempDir(), cfg)
			if !expired {
				recreate(t, living.conn, cfg)
				send(t, living.conn, "orders.x", "1")
			}
			other := receiveLater(t, living, 1)[0]

			next := startKillable(t, server, true, dir, cfg)
			send(t, next.conn, "orders.x", "2")
			if got := receive(t, next, 1)[0]; string(got.Message.Body) != "2" {
				t.Errorf("message %s was taken from its receiver", got.Message.Body)
			}
			if other.IsRevoked() {
				t.Error("the receiver lost its message")
			}
			next.end(t)
			living.end(t)
		})
	}
}
