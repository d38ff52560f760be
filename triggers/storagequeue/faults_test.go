package storagequeue

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue/azuritetest"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
)

// background receives and settles until the test ends, like the dispatcher: it retries after
// errors.
func background(t testing.TB, tr *trigger, handle func(*triggers.Delivery) triggers.Verdict) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		again := time.NewTicker(50 * time.Millisecond)
		defer again.Stop()
		for ctx.Err() == nil {
			ds, err := tr.Receive(ctx, 8)
			if err != nil {
				<-again.C
			}
			for _, d := range ds {
				v := handle(d)
				for d.Settle(context.WithoutCancel(ctx), v) != nil && ctx.Err() == nil {
					<-again.C // until it is back
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// restart stops Azurite like a service manager, and starts it again with the same data and port.
func restart(t *testing.T, s *azuritetest.Server, dir string, between func()) *azuritetest.Server {
	t.Helper()
	s.Stop()
	between()
	_, port, _ := strings.Cut(s.Address, ":")
	return azuritetest.StartIn(t, dir, port)
}

// The server stops and restarts while messages are received, handled and deleted: each message is
// done, and none is lost.
func TestTheServerGoesAndComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := azuritetest.StartIn(t, dir, "0")
	a := at(t, s.ConnectionString(), nil)
	queue := a.newQueue(t)
	var bodies []string
	for i := range 60 {
		bodies = append(bodies, fmt.Sprint("message ", i))
	}
	a.send(t, queue, bodies...)
	tr := a.open(t, queue, func(c *Config) { c.Lease = 3 * time.Second })
	seen := make(map[string]int)
	var handled atomic.Int64
	down := make(chan struct{}) // closed when the server is gone
	stop := background(t, tr, func(d *triggers.Delivery) triggers.Verdict {
		seen[string(d.Message.Body)]++
		if handled.Add(1) == 20 {
			<-down // handled before, deleted after it went
		}
		return triggers.Verdict{Kind: triggers.Done}
	})
	eventually(t, "a third is handled", func() bool { return handled.Load() == 20 })
	restart(t, s, dir, func() {
		close(down)
		if _, err := tr.Backlog(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("the backlog of a server that is gone: %v", err)
		}
	})
	eventually(t, "all are done", func() bool { return handled.Load() >= 60 })
	eventually(t, "all are deleted", func() bool {
		left, err := tr.queue.count(t.Context())
		return err == nil && left == 0
	})
	stop()
	if len(seen) != 60 {
		t.Errorf("%d of 60 messages came", len(seen))
	}
}

// If the answer to a get is lost, its messages are hidden for the lease, and no longer.
func TestALostAnswer(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "once")
	tr := a.open(t, queue, nil)
	a.Inject(emulator.Fault{Operation: emulator.Get, Times: 1, LoseAnswer: true})
	before := time.Now()
	d := receive(t, tr, 1)[0]
	if took := time.Since(before); d.Message.Attempt != 1 || took < 900*time.Millisecond {
		t.Errorf("attempt %d after %v; the lease is 1 s", d.Message.Attempt, took)
	}
	// The answer to a delete: it was carried out, so it is done.
	a.Inject(emulator.Fault{Operation: emulator.Delete, Times: 1, LoseAnswer: true})
	done(t, d)
	if n := a.Len(queue); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

// The answer to a renewal is lost, so the receipt is stale. The function's work counts, and this
// instance does not run the message again.
func TestAStaleReceipt(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "slow")
	tr := a.open(t, queue, nil)
	d := receive(t, tr, 1)[0]
	lost := make(watcher, 1)
	d.OnRevoked(lost)
	a.Inject(emulator.Fault{Operation: emulator.Update, Times: 1, LoseAnswer: true})
	<-lost
	done(t, d) // the service refuses
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	if ds, _ := tr.Receive(ctx, 1); len(ds) > 0 {
		t.Error("it was delivered again, although it was done")
	}
	eventually(t, "it is deleted when it comes again", func() bool { return a.Len(queue) == 0 })

	// Another instance has it: a failure here does not release it.
	a.send(t, queue, "taken")
	d = receive(t, tr, 1)[0]
	l := tr.only(t)
	l.asking.Lock()
	l.receipt = "stale"
	l.asking.Unlock()
	settle(t, d, triggers.Verdict{Kind: triggers.Retry})
	if d = receive(t, tr, 1)[0]; d.Message.Attempt != 2 {
		t.Errorf("attempt %d; the failure counts", d.Message.Attempt)
	}
	done(t, d)
}

// only returns the only leased message.
func (t *trigger) only(tb testing.TB) *leasedMessage {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keeper.Len() != 1 {
		tb.Fatalf("%d leases", t.keeper.Len())
	}
	for l := range t.keeper.All() {
		return l
	}
	return nil
}

type watcher chan struct{}

func (w watcher) LeaseRevoked() { w <- struct{}{} }

// A server that asks clients to wait gets no request before that time.
func TestThrottling(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusTooManyRequests} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			a := emulated(t)
			queue := a.newQueue(t)
			a.send(t, queue, "x")
			tr := a.open(t, queue, nil)
			a.Inject(emulator.Fault{Operation: emulator.Get, Times: 1, Status: status, Code: "ServerBusy", RetryAfter: "2"})
			before := time.Now()
			if _, err := tr.Receive(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "throttled") {
				t.Errorf("%v", err)
			}
			gets := a.Usage()[emulator.Get]
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _ = tr.Receive(ctx, 1) // before it may
			cancel()
			tr.wake() // nor because of this
			if n := a.Usage()[emulator.Get] - gets; n != 0 {
				t.Errorf("%d gets while the server had asked to wait", n)
			}
			d := receive(t, tr, 1)[0]
			if took := time.Since(before); took < 1900*time.Millisecond {
				t.Errorf("it came after %v; the server asked to wait for 2 s", took)
			}
			// A settlement waits as long, too.
			a.Inject(emulator.Fault{Operation: emulator.Delete, Times: 1, Status: status, Code: "ServerBusy", RetryAfter: "1"})
			before = time.Now()
			done(t, d)
			if took := time.Since(before); took < 900*time.Millisecond {
				t.Errorf("it was tried again after %v", took)
			}
		})
	}
}

// Azurite's disk is full: nothing is sent, nothing is lost, and everything continues when there is
// space again.
func TestAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", dir).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("cannot mount: %v: %s", err, out)
		}
		t.Skipf("needs the right to mount: sudo go test -run TestAFullDisk ./triggers/storagequeue (%v: %s)", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	a := at(t, azuritetest.StartIn(t, dir, "0").ConnectionString(), nil)
	queue := a.newQueue(t)
	a.send(t, queue, "bad", "good")
	tr := a.open(t, queue, nil)
	ds := receive(t, tr, 2)
	if string(ds[0].Message.Body) != "bad" {
		ds[0], ds[1] = ds[1], ds[0]
	}
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filepath.Clean(filler))
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := NewSender(SenderConfig{Account: a.Account, Queue: queue, Encoding: Text})
	if err != nil {
		t.Fatal(err)
	}
	large := &triggers.Message{Body: []byte(strings.Repeat("x", 60<<10))}
	if err := errors.Join(s.Send(t.Context(), large), s.Flush(t.Context())); err == nil || s.ConfirmedCount() != 0 {
		t.Errorf("sending: %v, taken %d", err, s.ConfirmedCount())
	}
	reject := triggers.Verdict{Kind: triggers.Reject, Reason: strings.Repeat("no good ", 500), Detail: strings.Repeat("line\n", 6000)}
	if err := ds[0].Settle(t.Context(), reject); err == nil || !strings.Contains(err.Error(), "the poison queue") {
		t.Errorf("rejecting: %v", err)
	}
	done(t, ds[1]) // needs no room
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it can be rejected", func() bool { return ds[0].Settle(t.Context(), reject) == nil })
	if dead := a.dead(t, queue); len(dead) != 1 || string(dead[0].Body) != "bad" {
		t.Errorf("%d dead letters", len(dead))
	}
	if n, err := tr.queue.count(t.Context()); err != nil || n != 0 {
		t.Errorf("%d messages are left, %v", n, err)
	}
}

// Prefetched messages beyond the target are released, for other receivers.
func TestSurplusIsReleased(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, make([]string, 20)...)
	tr := a.open(t, queue, func(c *Config) { c.Prefetch = 10 })
	ds := receive(t, tr, 1)
	prefetched := func() int {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return tr.buffer.Len()
	}
	eventually(t, "ten are prefetched", func() bool { return prefetched() == 10 })
	tr.mu.Lock()
	tr.cfg.Prefetch = 0 // as where the function became slow
	tr.mu.Unlock()
	eventually(t, "they are released", func() bool { return prefetched() == 0 })
	other := a.open(t, queue, nil)
	done(t, append(ds, receive(t, other, 19)...)...)
	if n := a.Len(queue); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// A stop waits for a get in flight, and releases the messages that it returns.
func TestAStopWhileAGetIsOnItsWay(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "x")
	tr := a.open(t, queue, func(c *Config) { c.Lease = time.Hour })
	a.Inject(emulator.Fault{Operation: emulator.Get, Times: 1, Delay: 300 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if ds, err := tr.Receive(ctx, 1); len(ds) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v, %v", ds, err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Receive(t.Context(), 1); err == nil {
		t.Error("it receives after Close")
	}
	done(t, receive(t, a.open(t, queue, nil), 1)...)
}
