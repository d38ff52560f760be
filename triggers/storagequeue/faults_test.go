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

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2/sas"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue/azuritetest"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
)

// background receives and settles until the test ends, as the dispatcher does:
// what fails is done again.
func background(t testing.TB, tr *trigger, handle func(*triggers.Delivery) triggers.Verdict) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			ds, err := tr.Receive(ctx, 8)
			if err != nil {
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
				}
			}
			for _, d := range ds {
				v := handle(d)
				for d.Settle(context.WithoutCancel(ctx), v) != nil && ctx.Err() == nil {
					time.Sleep(50 * time.Millisecond) // until it is back
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// restart stops an Azurite as a service manager would, and starts it again over
// the same data and port.
func restart(t *testing.T, s *azuritetest.Server, dir string, between func()) *azuritetest.Server {
	t.Helper()
	s.Stop()
	between()
	_, port, _ := strings.Cut(s.Address, ":")
	return azuritetest.StartIn(t, dir, port)
}

// The server goes, while messages are received, handled and deleted, and comes
// back: each message is done, and none is lost.
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
	left, err := tr.queue.count(t.Context())
	eventually(t, "all are deleted", func() bool {
		left, err = tr.queue.count(t.Context())
		return err == nil && left == 0
	})
	stop()
	if len(seen) != 60 {
		t.Errorf("%d of 60 messages came", len(seen))
	}
}

// An answer to a get that is lost hides its messages for the lease, and no longer.
func TestALostAnswer(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "once")
	tr := a.open(t, queue, nil)
	a.Inject(emulator.Fault{Operation: emulator.Get, Times: 1, LoseAnswer: true})
	before := time.Now()
	d := receive(t, tr, 1)[0]
	if took := time.Since(before); d.Message.Attempt != 1 || took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("attempt %d after %v; the lease is 1 s", d.Message.Attempt, took)
	}
	// The answer to a delete: it was carried out, so it is done.
	a.Inject(emulator.Fault{Operation: emulator.Delete, Times: 1, LoseAnswer: true})
	done(t, d)
	if n := a.Len(queue); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

// The answer to a renewal is lost: its receipt is stale. The function's work
// counts, and the message is not run again by this instance.
func TestAStaleReceipt(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "slow")
	tr := a.open(t, queue, nil)
	d := receive(t, tr, 1)[0]
	lost := make(watcher, 1)
	d.Watch(lost)
	a.Inject(emulator.Fault{Operation: emulator.Update, Times: 1, LoseAnswer: true})
	<-lost
	done(t, d) // the service says no
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	if ds, _ := tr.Receive(ctx, 1); len(ds) > 0 {
		t.Error("it was handed out again, though it was done")
	}
	eventually(t, "it is deleted when it comes again", func() bool { return a.Len(queue) == 0 })

	// Another instance has it: what fails here is not given back.
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

// only is the only loan.
func (t *trigger) only(tb testing.TB) *loan {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.loans) != 1 {
		tb.Fatalf("%d loans", len(t.loans))
	}
	for l := range t.loans {
		return l
	}
	return nil
}

type watcher chan struct{}

func (w watcher) Lost() { w <- struct{}{} }

// A server that asks to wait is not asked before.
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
			if _, err := tr.Receive(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "asks to wait") {
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
			if took := time.Since(before); took < 1900*time.Millisecond || took > 5*time.Second {
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

// A poison queue that cannot be made keeps the message on loan: nothing is lost.
func TestThePoisonQueueCannotBeMade(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "bad")
	tr := a.open(t, queue, nil)
	d := receive(t, tr, 1)[0]
	takeBack := a.Inject(emulator.Fault{Operation: emulator.CreateQueue, Status: http.StatusForbidden, Code: "AuthorizationPermissionMismatch"})
	reject := triggers.Verdict{Kind: triggers.Reject, Reason: "no good", Function: "f"}
	err := d.Settle(t.Context(), reject)
	if err == nil || !strings.Contains(err.Error(), "the poison queue: making "+queue+"-poison") || !strings.Contains(err.Error(), "Storage Queue Data Contributor") {
		t.Errorf("%v", err)
	}
	if a.Len(queue) != 1 {
		t.Fatal("the message is gone")
	}
	takeBack()
	// It can be made, and the message can't be deleted at first: there is one copy.
	a.Inject(emulator.Fault{Operation: emulator.Delete, Times: 4, Status: http.StatusInternalServerError, Code: "InternalError"})
	if err := d.Settle(t.Context(), reject); err == nil {
		t.Error("it could not be deleted, and no error")
	}
	settle(t, d, reject)
	if dead := a.dead(t, queue); len(dead) != 1 || string(dead[0].Body) != "bad" || a.Len(queue) != 0 {
		t.Errorf("dead letters %+v, and %d messages left", dead, a.Len(queue))
	}
}

// What does not fit into an envelope: first the traceback gives way.
func TestLargeDeadLetters(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	for _, test := range []struct {
		body, detail int
		want         string
	}{
		{1 << 10, 1 << 10, "all"},
		{20 << 10, 64 << 10, "the end of the traceback"},
		{48 << 10, 1 << 10, "the body alone"},
	} {
		tr := a.open(t, queue, nil)
		body := strings.Repeat("b", test.body)
		a.send(t, queue, body)
		d := receive(t, tr, 1)[0]
		settle(t, d, triggers.Verdict{Kind: triggers.Reject, Reason: "no good", Detail: strings.Repeat("d", test.detail-5) + "\nlast", Function: "f"})
		if test.want == "the body alone" {
			if texts := a.texts(t, queue+PoisonSuffix); len(texts) != 1 || len(texts[0]) != 64<<10 {
				t.Errorf("%s: %d messages", test.want, len(texts))
			}
			continue
		}
		dead := a.dead(t, queue)
		if len(dead) != 1 || string(dead[0].Body) != body || dead[0].Reason != "no good" || !strings.HasSuffix(dead[0].Detail, "\nlast") {
			t.Fatalf("%s: %d dead letters", test.want, len(dead))
		}
		if whole := len(dead[0].Detail) == test.detail; whole != (test.want == "all") {
			t.Errorf("%s: the traceback has %d of %d bytes", test.want, len(dead[0].Detail), test.detail)
		}
		if _, err := a.raw(t, queue+PoisonSuffix).ClearMessages(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// Dead letters have no end, unlike messages, which have a week.
func TestDeadLettersStay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue := a.newQueue(t)
		a.send(t, queue, "bad")
		tr := a.open(t, queue, func(c *Config) { c.PoisonFormat = PoisonBody })
		settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Reject, Reason: "no good"})
		got, err := a.raw(t, queue+PoisonSuffix).DequeueMessage(t.Context(), nil)
		if err != nil || len(got.Messages) != 1 {
			t.Fatalf("%v, %v", got.Messages, err)
		}
		if m := got.Messages[0]; *m.MessageText != "YmFk" || m.ExpirationTime.Year() < 9999 {
			t.Errorf("%s, until %v", *m.MessageText, m.ExpirationTime)
		}
	})
}

// A message that brings down what runs it has no failures that anybody counted.
func TestTooManyDeliveries(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "deadly")
	for range 3 {
		tr := a.open(t, queue, func(c *Config) { c.MaxDequeueCount, c.MaxAttempts = 3, 2 })
		receive(t, tr, 1)
		tr.crash()
	}
	tr := a.open(t, queue, func(c *Config) { c.MaxDequeueCount, c.MaxAttempts = 3, 2 })
	stop := background(t, tr, func(*triggers.Delivery) triggers.Verdict {
		t.Error("it ran once more")
		return triggers.Verdict{Kind: triggers.Release}
	})
	eventually(t, "it is in the poison queue", func() bool { return len(a.dead(t, queue)) == 1 })
	stop()
	if d := a.dead(t, queue)[0]; string(d.Body) != "deadly" || !strings.Contains(d.Reason, "it was handed out 4 times, more than max_dequeue_count (3)") {
		t.Errorf("%+v", d)
	}
}

// The service's clock is off by a day: times are counted by our own.
func TestAClockThatIsOff(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			a := emulated(t)
			queue := a.newQueue(t)
			a.SetClock(ahead)
			// A key's signature has a date, and is refused.
			_, err := Open(t.Context(), a.config(t, queue))
			if err == nil || !strings.Contains(err.Error(), "this machine's clock") || !strings.Contains(err.Error(), "too old or too new") {
				t.Fatalf("%v", err)
			}
			// A shared access signature has none, nor has a token.
			_, endpoint, _ := strings.Cut(a.connection, "QueueEndpoint=")
			b := at(t, "QueueEndpoint="+strings.TrimSuffix(endpoint, ";")+";SharedAccessSignature=sv=2024-11-04&sig=x", a.Emulator)
			b.send(t, queue, "long", "again")
			tr := b.open(t, queue, nil)
			ds := receive(t, tr, 2)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if more, _ := tr.Receive(ctx, 1); len(more) > 0 {
				t.Fatal("a lease was not renewed")
			}
			before := time.Now()
			settle(t, ds[1], triggers.Verdict{Kind: triggers.Retry, Delay: time.Second})
			d := receive(t, tr, 1)[0]
			if took := time.Since(before); d.Message.Attempt != 2 || took < 950*time.Millisecond || took > 5*time.Second {
				t.Errorf("attempt %d after %v", d.Message.Attempt, took)
			}
			done(t, ds[0], d)
		})
	}
}

// Errors that a user meets say where, what, and what to do.
func TestErrors(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		fails := func(cfg Config, wants ...string) {
			t.Helper()
			tr, err := Open(t.Context(), cfg)
			if err == nil {
				err = tr.Close(t.Context())
				t.Errorf("it opened; want %q (%v)", wants, err)
				return
			}
			for _, want := range wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v; want %q", err, want)
				}
			}
			if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "sig=") || strings.Contains(err.Error(), emulator.Key) {
				t.Errorf("a secret or a line end in %q", err)
			}
		}
		fails(a.config(t, "missing"), "missing", "QueueNotFound (HTTP 404)", "create: true makes it")
		fails(a.config(t, "Not_A_Name"), "Not_A_Name", "HTTP 400")
		cfg := a.config(t, "made-here")
		cfg.Create = true
		tr, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		// It is deleted while it is read, and made again.
		if _, err := a.raw(t, "made-here").Delete(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Receive(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "QueueNotFound") {
			t.Errorf("receiving from a queue that was deleted: %v", err)
		}
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}

		gone := at(t, emulator.ConnectionString("127.0.0.1:1"), nil)
		fails(gone.config(t, "orders"), "127.0.0.1:1: ", "connection refused")
		for _, test := range []struct{ connection, want string }{
			{"AccountName=x", "needs either AccountKey or SharedAccessSignature"},
			{"nonsense", "malformed"},
			{"AccountName=x;AccountKey=%%%", "the connection string: "},
		} {
			cfg := a.config(t, "orders")
			cfg.Account = newAccount(t, test.connection)
			fails(cfg, test.want)
		}
	})
}

// Signatures, checked by Azurite: what is over, and what lacks a permission.
func TestSignatures(t *testing.T) {
	t.Parallel()
	a := at(t, azuritetest.Start(t).ConnectionString(), nil)
	queue := a.newQueue(t)
	credential, err := azqueue.NewSharedKeyCredential(emulator.Account, emulator.Key)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(p sas.QueuePermissions, until time.Duration) string {
		t.Helper()
		q, err := sas.QueueSignatureValues{Version: sas.Version, Protocol: sas.ProtocolHTTPSandHTTP, StartTime: time.Now().Add(-time.Hour).UTC(), ExpiryTime: time.Now().Add(until).UTC(), Permissions: p.String(), QueueName: queue}.SignWithSharedKey(credential)
		if err != nil {
			t.Fatal(err)
		}
		_, endpoint, _ := strings.Cut(a.connection, "QueueEndpoint=")
		return "QueueEndpoint=" + strings.TrimSuffix(endpoint, ";") + ";SharedAccessSignature=" + q.Encode()
	}
	all := sas.QueuePermissions{Read: true, Add: true, Update: true, Process: true}

	// One that is over is read anew, as from a file that was changed.
	var connection atomic.Value
	connection.Store(signed(all, -time.Minute))
	account := NewAccount(Access{ConnectionString: func() (string, error) { return connection.Load().(string), nil }})
	t.Cleanup(account.Close)
	b := &otherWay{a, account}
	_, err = Open(t.Context(), b.config(t, queue))
	if err == nil || !strings.Contains(err.Error(), "the key or signature is wrong or has ended") || strings.Contains(err.Error(), "sig=") {
		t.Errorf("a signature that is over: %v", err)
	}
	connection.Store(signed(all, 2*time.Second))
	tr := b.open(t, queue)
	a.send(t, queue, "x")
	done(t, receive(t, tr, 1)...)
	eventually(t, "the signature is over", func() bool {
		_, err := tr.queue.peek(t.Context(), 1)
		return err != nil
	})
	connection.Store(signed(all, time.Hour))
	a.send(t, queue, "y")
	done(t, receive(t, tr, 1)...)

	// Without the permission to update, leases are not renewed, and end.
	connection.Store(signed(sas.QueuePermissions{Process: true}, time.Hour))
	c := at(t, connection.Load().(string), nil)
	narrow := c.open(t, queue, nil)
	a.send(t, queue, "z")
	settle(t, receive(t, narrow, 1)[0], triggers.Verdict{Kind: triggers.Retry})
	if d := receive(t, narrow, 1)[0]; d.Message.Attempt != 2 {
		t.Errorf("attempt %d", d.Message.Attempt)
	} else {
		done(t, d)
	}
	if _, err := narrow.Backlog(t.Context()); err == nil || !strings.Contains(err.Error(), "Storage Queue Data Reader, a signature the permission r (read)") {
		t.Errorf("%v", err)
	}
	s, err := NewSender(SenderConfig{Account: c.Account, Queue: queue, Encoding: Text})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(s.Send(t.Context(), &triggers.Message{}), s.Flush(t.Context()))
	if err == nil || !strings.Contains(err.Error(), "Storage Queue Data Message Sender, a signature the permission a (add)") {
		t.Errorf("%v", err)
	}

	// A key that is none of the account's.
	wrong := at(t, strings.Replace(a.connection, emulator.Key, "d3Jvbmc=", 1), nil)
	if _, err := Open(t.Context(), wrong.config(t, queue)); err == nil || !strings.Contains(err.Error(), "the key or signature is wrong") {
		t.Errorf("%v", err)
	}
}

// otherWay is a test's account with another way in.
type otherWay struct {
	*account
	other *Account
}

func (a *otherWay) config(t testing.TB, queue string) Config {
	c := a.account.config(t, queue)
	c.Account = a.other
	return c
}

func (a *otherWay) open(t testing.TB, queue string) *trigger {
	t.Helper()
	return a.account.open(t, queue, func(c *Config) { c.Account = a.other })
}

func TestAnAPIVersionThatTheServerDoesNotKnow(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.SetNewestVersion("2024-11-04")
	_, err := Open(t.Context(), a.config(t, queue))
	if err == nil || !strings.Contains(err.Error(), "2026-04-06") || !strings.Contains(err.Error(), "--skipApiVersionCheck") {
		t.Errorf("%v", err)
	}
}

// A disk of Azurite's that is full: nothing is sent, nothing is lost, and all goes
// on when there is room again.
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
	if err := errors.Join(s.Send(t.Context(), large), s.Flush(t.Context())); err == nil || s.Taken() != 0 {
		t.Errorf("sending: %v, taken %d", err, s.Taken())
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

// What is held and not wanted goes back, for others to take; what is wanted stays.
func TestWhatIsHeldWithoutNeedGoesBack(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, make([]string, 20)...)
	tr := a.open(t, queue, func(c *Config) { c.Prefetch = 10 })
	ds := receive(t, tr, 1)
	held := func() int {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.held)
	}
	eventually(t, "ten are held", func() bool { return held() == 10 })
	tr.mu.Lock()
	tr.cfg.Prefetch = 0 // as where the function became slow
	tr.mu.Unlock()
	eventually(t, "they went back", func() bool { return held() == 0 })
	other := a.open(t, queue, nil)
	done(t, append(ds, receive(t, other, 19)...)...)
	if n := a.Len(queue); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// A stop waits for a get that is on its way, and gives back what it brings.
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
