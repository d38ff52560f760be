package storagequeue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
	"go.uber.org/goleak"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue/azuritetest"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
	"github.com/drover-run/drover/triggers/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// account is a storage account for one test: the emulator's, or Azurite's.
type account struct {
	*emulator.Emulator        // nil with Azurite
	connection         string // its connection string
	ledger             *Ledger
	*Account
}

var queues atomic.Int64

// newQueue makes a queue of a name of its own.
func (a *account) newQueue(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("queue-%d", queues.Add(1))
	r, err := a.reach(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.make(t.Context()); err != nil {
		t.Fatal(err)
	}
	return name
}

func emulated(t testing.TB) *account {
	t.Helper()
	e := emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, e, l)
	return at(t, emulator.ConnectionString(l.Addr().String()), e)
}

func serve(t testing.TB, e *emulator.Emulator, l net.Listener) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- e.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(e.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
}

// at is the account behind a connection string.
func at(t testing.TB, connection string, e *emulator.Emulator) *account {
	t.Helper()
	a := &account{Emulator: e, connection: connection, ledger: openLedger(t, filepath.Join(t.TempDir(), "ledger"))}
	a.Account = newAccount(t, connection)
	return a
}

func newAccount(t testing.TB, connection string) *Account {
	a := NewAccount(Access{ConnectionString: func() (string, error) { return connection, nil }})
	t.Cleanup(a.Close)
	return a
}

func openLedger(t testing.TB, path string) *Ledger {
	t.Helper()
	l, err := OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// onBoth runs a test on the emulator and on Azurite.
func onBoth(t *testing.T, test func(t *testing.T, a *account)) {
	t.Run("emulator", func(t *testing.T) {
		t.Parallel()
		test(t, emulated(t))
	})
	t.Run("azurite", func(t *testing.T) {
		t.Parallel()
		test(t, at(t, azuritetest.Start(t).ConnectionString(), nil))
	})
}

func (a *account) config(t testing.TB, queue string) Config {
	return Config{
		Account: a.Account, Queue: queue, PoisonQueue: queue + PoisonSuffix, Encoding: Base64, PoisonFormat: PoisonEnvelope,
		Lease: time.Second, MaxPollInterval: 200 * time.Millisecond, MaxAttempts: 5, MaxDequeueCount: 100, Prefetch: PrefetchAuto,
		Ledger: a.ledger, Log: testLog(t),
	}
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// open returns a trigger; change may be nil.
func (a *account) open(t testing.TB, queue string, change func(*Config)) *trigger {
	t.Helper()
	cfg := a.config(t, queue)
	if change != nil {
		change(&cfg)
	}
	tr, err := open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(context.Background()); err != nil && !t.Failed() {
			t.Error(err)
		}
	})
	return tr
}

func (a *account) send(t testing.TB, queue string, bodies ...string) {
	t.Helper()
	s, err := NewSender(SenderConfig{Account: newAccount(t, a.connection), Queue: queue, Encoding: Base64})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		if err := s.Send(t.Context(), &triggers.Message{Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// raw is a client of the SDK.
func (a *account) raw(t testing.TB, queue string) *azqueue.QueueClient {
	t.Helper()
	c, err := a.client(queue)
	if err != nil {
		t.Fatal(err)
	}
	return c.QueueClient
}

// texts returns what a queue holds, as it is written.
func (a *account) texts(t testing.TB, queue string) []string {
	t.Helper()
	r, err := a.reach(queue)
	if err != nil {
		t.Fatal(err)
	}
	ms, err := r.peek(t.Context(), maxGet)
	if err != nil && !strings.Contains(err.Error(), "QueueNotFound") {
		t.Fatal(err)
	}
	var out []string
	for _, m := range ms {
		out = append(out, *m.MessageText)
	}
	return out
}

// crash ends a trigger as kill -9 of its process would.
func (t *trigger) crash() {
	t.mu.Lock()
	t.closed, t.held = true, nil
	t.alarm.Stop()
	t.mu.Unlock()
	t.stop()
	t.stopAsking()
	t.running.Wait()
	t.mu.Lock()
	t.held = nil
	t.mu.Unlock()
}

func TestConformance(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		triggertest.Run(t, func(t *testing.T, o triggertest.Options) *triggertest.Source {
			if o.Ordered {
				t.Skip("storage queues have no order")
			}
			queue := a.newQueue(t)
			return &triggertest.Source{
				Open: func(t testing.TB) triggers.Trigger { return a.open(t, queue, nil) },
				Send: func(t testing.TB, ms ...triggers.Message) {
					for _, m := range ms {
						a.send(t, queue, string(m.Body))
					}
				},
				Crash:        func(_ testing.TB, tr triggers.Trigger) { tr.(*trigger).crash() },
				Dead:         func(t testing.TB) []triggertest.Dead { return a.dead(t, queue) },
				Loan:         time.Second,
				NoAttributes: true,
				MaxBody:      48 << 10,
			}
		})
	})
}

// dead reads the envelopes of a queue's poison queue.
func (a *account) dead(t testing.TB, queue string) []triggertest.Dead {
	t.Helper()
	var out []triggertest.Dead
	for _, text := range a.texts(t, queue+PoisonSuffix) {
		raw, err := Base64.decode(text)
		if err != nil {
			t.Fatal(err)
		}
		var e Envelope
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		body := []byte(e.Body)
		if e.BodyBase64 != nil {
			body = e.BodyBase64
		}
		out = append(out, triggertest.Dead{Body: body, Reason: e.Error, Detail: e.Traceback, Attempts: e.Attempts, Function: e.Function})
	}
	return out
}

// receive waits for n messages.
func receive(t testing.TB, tr *trigger, n int) []*triggers.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out []*triggers.Delivery
	for len(out) < n {
		got, err := tr.Receive(ctx, n-len(out))
		if err != nil {
			t.Fatalf("received %d of %d, then: %v", len(out), n, err)
		}
		out = append(out, got...)
	}
	return out
}

func settle(t testing.TB, d *triggers.Delivery, v triggers.Verdict) {
	t.Helper()
	if err := d.Settle(t.Context(), v); err != nil {
		t.Fatal(err)
	}
}

func done(t testing.TB, ds ...*triggers.Delivery) {
	t.Helper()
	for _, d := range ds {
		settle(t, d, triggers.Verdict{Kind: triggers.Done})
	}
}

// A renewal must not change a message: the SDK would send its text along.
func TestRenewalsKeepTheText(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue := a.newQueue(t)
		const text = " <a>&amp;\r\n\t\"käse\" ☃ "
		if _, err := a.raw(t, queue).EnqueueMessage(t.Context(), text, nil); err != nil {
			t.Fatal(err)
		}
		tr := a.open(t, queue, func(c *Config) { c.Encoding = Text })
		d := receive(t, tr, 1)[0]
		before := string(d.Message.Body)
		settle(t, d, triggers.Verdict{Kind: triggers.Retry})
		d = receive(t, tr, 1)[0]
		if got := string(d.Message.Body); got != before || strings.ReplaceAll(got, "\r", "") != strings.ReplaceAll(text, "\r", "") {
			t.Errorf("sent %q; received %q, and %q after an update", text, before, got)
		}
		done(t, d)
	})
}

func TestEncodings(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	for _, test := range []struct {
		encoding Encoding
		text     string
		want     string // of the body
		misfit   string
	}{
		{Base64, "aGVsbG8=", "hello", ""},
		{Base64, "hello!", "", "the body is not base64; where senders write the text as it is, set encoding: text"},
		{Base64, "", "", ""},
		{Text, "aGVsbG8=", "aGVsbG8=", ""},
		{Text, "hello!", "hello!", ""},
		{Auto, "aGVsbG8=", "hello", ""},
		{Auto, "hello!", "hello!", ""},
	} {
		t.Run(fmt.Sprintf("%s %q", test.encoding, test.text), func(t *testing.T) {
			queue := a.newQueue(t)
			tr := a.open(t, queue, func(c *Config) { c.Encoding, c.PoisonFormat = test.encoding, PoisonBody })
			if _, err := a.raw(t, queue).EnqueueMessage(t.Context(), test.text, nil); err != nil {
				t.Fatal(err)
			}
			if test.misfit == "" {
				d := receive(t, tr, 1)[0]
				if string(d.Message.Body) != test.want {
					t.Errorf("%q, want %q", d.Message.Body, test.want)
				}
				done(t, d)
				return
			}
			if l := tr.newLoan(&azqueue.DequeuedMessage{MessageText: &test.text}, time.Now()); l.misfit != test.misfit {
				t.Errorf("%q, want %q", l.misfit, test.misfit)
			}
			// It is moved as it is, and no function sees it.
			eventually(t, "the poison queue has the text", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				if got, _ := tr.Receive(ctx, 1); len(got) > 0 {
					t.Fatal("it was handed out")
				}
				texts := a.texts(t, queue+PoisonSuffix)
				return len(texts) == 1 && texts[0] == test.text && a.Len(queue) == 0
			})
		})
	}
}

// eventually waits for something that must come.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	late := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(late) {
			t.Fatalf("%s: not within 30 s", what)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

func TestSenders(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue := a.newQueue(t)
		send := func(t *testing.T, c SenderConfig, bodies ...string) error {
			t.Helper()
			c.Account, c.Queue = a.Account, queue
			s, err := NewSender(c)
			if err != nil {
				return err
			}
			for _, body := range bodies {
				if err := s.Send(t.Context(), &triggers.Message{Body: []byte(body)}); err != nil {
					return errors.Join(err, s.Flush(t.Context()))
				}
			}
			return s.Flush(t.Context())
		}
		if err := send(t, SenderConfig{Encoding: Text}, "<plain> & simple"); err != nil {
			t.Fatal(err)
		}
		if got := a.texts(t, queue); len(got) != 1 || got[0] != "<plain> & simple" {
			t.Errorf("as a text: %q", got)
		}
		if _, err := a.raw(t, queue).ClearMessages(t.Context(), nil); err != nil {
			t.Fatal(err)
		}

		// With a delay, and an end.
		if err := send(t, SenderConfig{Encoding: Base64, Delay: time.Second, TimeToLive: 2 * time.Second}, "later"); err != nil {
			t.Fatal(err)
		}
		if got := a.texts(t, queue); len(got) != 0 {
			t.Errorf("before its delay is over: %q", got)
		}
		eventually(t, "it is there", func() bool { return len(a.texts(t, queue)) == 1 })
		eventually(t, "it has ended", func() bool { return len(a.texts(t, queue)) == 0 })

		// The limits.
		if err := send(t, SenderConfig{Encoding: Base64}, strings.Repeat("x", 48<<10)); err != nil {
			t.Errorf("48 KiB as base64: %v", err)
		}
		if err := send(t, SenderConfig{Encoding: Text}, strings.Repeat("x", 64<<10)); err != nil {
			t.Errorf("64 KiB as a text: %v", err)
		}
		if err := send(t, SenderConfig{Encoding: Text}, strings.Repeat("<", 64<<10)); err != nil {
			t.Errorf("64 KiB that XML writes as more: %v", err)
		}
		for _, test := range []struct {
			encoding Encoding
			body     string
			is       error
			want     string
		}{
			{Base64, strings.Repeat("x", 48<<10+1), triggers.ErrTooLarge, "65540 bytes as base64; 65536 is the most, which is 48 KiB before base64"},
			{Text, strings.Repeat("x", 64<<10+1), triggers.ErrTooLarge, "65537 bytes as text"},
			{Text, "a\x00b", triggers.ErrEncoding, "byte 1 is no character of a text; set encoding: base64"},
			{Text, "\xff", triggers.ErrEncoding, "byte 0"},
		} {
			err := send(t, SenderConfig{Encoding: test.encoding}, test.body)
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		}
		for _, test := range []struct {
			delay, ttl time.Duration
			want       string
		}{
			{time.Minute, time.Second, "the delay (1m0s) must be less than the time to live (1s)"},
			{8 * 24 * time.Hour, 0, "limit of 7 days"},
		} {
			if err := send(t, SenderConfig{Encoding: Base64, Delay: test.delay, TimeToLive: test.ttl}, "x"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		}
	})
}

// What an output sends wakes the trigger of the same queue.
func TestASendingWakesTheTrigger(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	tr := a.open(t, queue, func(c *Config) { c.MaxPollInterval, c.Lease = time.Hour, time.Millisecond })
	tr.mu.Lock()
	tr.opened = tr.opened.Add(-time.Hour)
	tr.mu.Unlock()
	got := make(chan error, 1)
	go func() {
		ds, err := tr.Receive(t.Context(), 1)
		for _, d := range ds {
			err = errors.Join(err, d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Done}))
		}
		got <- err
	}()
	eventually(t, "the trigger rests", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return time.Until(tr.nextGet) > 3*time.Second
	})
	s, err := NewSender(SenderConfig{Account: a.Account, Queue: queue, Encoding: Base64})
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if err := errors.Join(s.Send(t.Context(), &triggers.Message{Body: []byte("wake up")}), s.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(before); took > 2*time.Second {
		t.Errorf("it came after %v", took)
	}
}

func TestPolling(t *testing.T) {
	p := pauses(10 * time.Second)
	var last time.Duration
	for range 12 {
		last = p.NextBackOff()
	}
	var total time.Duration
	for range 1000 {
		d := p.NextBackOff()
		if d > 10*time.Second {
			t.Fatalf("a pause of %v; max_poll_interval is 10s", d)
		}
		total += d
	}
	if perMinute := 1000 * float64(time.Minute) / float64(total); perMinute > 7 || last < 8*time.Second {
		t.Errorf("%.1f requests a minute at rest, after a pause of %v", perMinute, last)
	}
}

// The approximate count has hidden messages in it; a short queue is counted exactly.
func TestBacklogBeyondAPeek(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue := a.newQueue(t)
		a.send(t, queue, make([]string, 50)...)
		tr := a.open(t, queue, nil)
		ds := receive(t, tr, 10)
		if b, err := tr.Backlog(t.Context()); err != nil || b.Ready != 40 || b.AtLeast {
			t.Errorf("%+v, %v; want 40: 50 sent, 10 on loan", b, err)
		}
		done(t, ds...)
	})
}

func TestTheLedger(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger")
	l, err := OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	far := time.Now().Add(time.Hour)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := l.set("q", fmt.Sprint("m", i), i, far); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(l.set("q", "over", 3, time.Now().Add(-time.Hour)), l.forget("q", "m5"), l.forget("none", "m5")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLedger(path); !errors.Is(err, ErrLedgerInUse) || !strings.Contains(err.Error(), "data_dir") {
		t.Errorf("a second one: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLedger(t, path)
	for id, want := range map[string]int{"m7": 7, "m5": 0, "over": 0, "never": 0} {
		if n, err := l.failures("q", id); err != nil || n != want {
			t.Errorf("%s has failed %d times (%v), want %d", id, n, err, want)
		}
	}
	if n, err := l.failures("other", "m7"); err != nil || n != 0 {
		t.Errorf("in another queue: %d, %v", n, err)
	}
	bad := filepath.Join(t.TempDir(), "bad")
	write(t, bad, bytes.Repeat([]byte("no ledger"), 4096))
	if _, err := OpenLedger(bad); err == nil || !strings.Contains(err.Error(), "remove the file to begin anew") {
		t.Errorf("a file that is none: %v", err)
	}
	if _, err := OpenLedger(filepath.Join(t.TempDir(), "no", "such")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a directory that is missing: %v", err)
	}
}

// The two bounds of a message hold together: its failures, and how often it is
// handed out.
func TestAttempts(t *testing.T) {
	for _, test := range []struct {
		most               int64
		failures, dequeued int
		want               int
	}{
		{100, 0, 1, 1}, {100, 0, 50, 1}, {100, 3, 50, 4},
		{100, 0, 96, 1}, {100, 0, 97, 2}, {100, 0, 100, 5}, {100, 4, 97, 5},
		{5, 0, 1, 1}, {5, 0, 4, 4}, {5, 1, 5, 5}, // as the Azure Functions host counts
		{0, 0, 1000, 1},
	} {
		tr := &trigger{cfg: Config{MaxAttempts: 5, MaxDequeueCount: test.most}}
		if got := tr.attempt(test.failures, int64(test.dequeued)); got != test.want {
			t.Errorf("max_dequeue_count %d, %d failures, handed out %d times: attempt %d, want %d", test.most, test.failures, test.dequeued, got, test.want)
		}
	}
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
