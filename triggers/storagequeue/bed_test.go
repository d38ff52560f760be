package storagequeue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
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

// newQueue creates a queue with a unique name.
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

// texts returns the texts in a queue, unchanged.
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

// crash ends a trigger like a kill -9 of its process.
func (t *trigger) crash() {
	t.mu.Lock()
	t.buffer.Close()
	t.alarm.Stop()
	t.mu.Unlock()
	t.stop()
	t.stopAsking()
	t.running.Wait()
	t.mu.Lock()
	t.buffer.Rest()
	t.mu.Unlock()
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
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
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

// patience bounds every wait for something that must happen.
const patience = 3 * time.Minute

// eventually waits for something that must happen.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	late, look := time.NewTimer(patience), time.NewTicker(10*time.Millisecond)
	defer late.Stop()
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-late.C:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
