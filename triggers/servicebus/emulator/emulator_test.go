package emulator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 3 * time.Minute

// clock is a clock that a test sets.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(e *Emulator, d time.Duration) {
	c.mu.Lock()
	c.ahead += d
	c.mu.Unlock()
	e.Jump()
}

type bed struct {
	*Emulator
	clock   *clock
	address string
	t       testing.TB
}

func start(t testing.TB, o Options) *bed {
	t.Helper()
	b := &bed{clock: new(clock), t: t}
	o.Now = b.clock.now
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	b.Emulator = New(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- b.Serve(l) }()
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bed) soon() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	b.t.Cleanup(cancel)
	return ctx
}

func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (b *bed) client() *azservicebus.Client {
	b.t.Helper()
	c := must[*azservicebus.Client](b.t)(azservicebus.NewClientFromConnectionString(b.ConnectionString(b.address), &azservicebus.ClientOptions{
		RetryOptions: azservicebus.RetryOptions{MaxRetries: -1},
	}))
	b.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (b *bed) queue(path string, o QueueOptions) {
	b.t.Helper()
	if err := b.CreateQueue(path, o); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) send(c *azservicebus.Client, path string, bodies ...string) {
	b.t.Helper()
	s := must[*azservicebus.Sender](b.t)(c.NewSender(path, nil))
	for _, body := range bodies {
		if err := s.SendMessage(b.soon(), &azservicebus.Message{Body: []byte(body)}, nil); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := s.Close(b.soon()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) receive(r *azservicebus.Receiver, n int) (all []*azservicebus.ReceivedMessage) {
	b.t.Helper()
	ctx := b.soon()
	for len(all) < n {
		got, err := r.ReceiveMessages(ctx, n-len(all), nil)
		if err != nil {
			b.t.Fatalf("after %d of %d messages: %v", len(all), n, err)
		}
		all = append(all, got...)
	}
	return all
}

// counts waits until an entity has these counts.
func (b *bed) wantCounts(path string, want Counts) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got, err := b.Counts(path)
		if err != nil {
			b.t.Fatal(err)
		}
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s has %+v; want %+v", path, got, want)
		}
	}
}

func TestAQueue(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	b.queue("orders", QueueOptions{})
	c := b.client()
	b.send(c, "orders", "1", "2", "3", "4")
	r := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", nil))
	got := b.receive(r, 4)
	for i, m := range got {
		if string(m.Body) != fmt.Sprint(i+1) || m.DeliveryCount != 1 || m.MessageID == "" || m.SequenceNumber == nil || m.LockedUntil == nil {
			t.Errorf("message %d: %+v", i, m)
		}
	}
	b.wantCounts("orders", Counts{Locked: 4})
	if err := r.CompleteMessage(b.soon(), got[0], nil); err != nil {
		t.Error(err)
	}
	if err := r.AbandonMessage(b.soon(), got[1], &azservicebus.AbandonMessageOptions{PropertiesToModify: map[string]any{"attempts": int64(1)}}); err != nil {
		t.Error(err)
	}
	reason, text := "no such customer", "Traceback ..."
	if err := r.DeadLetterMessage(b.soon(), got[2], &azservicebus.DeadLetterOptions{Reason: &reason, ErrorDescription: &text}); err != nil {
		t.Error(err)
	}
	if err := r.DeferMessage(b.soon(), got[3], nil); err != nil {
		t.Error(err)
	}
	b.wantCounts("orders", Counts{Active: 1, Deferred: 1, DeadLettered: 1})

	again := b.receive(r, 1)[0]
	if string(again.Body) != "2" || again.DeliveryCount != 2 || again.ApplicationProperties["attempts"] != int64(1) {
		t.Errorf("the abandoned one came as %+v", again)
	}
	dead := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter}))
	buried := b.receive(dead, 1)[0]
	if *buried.DeadLetterReason != reason || *buried.DeadLetterErrorDescription != text || string(buried.Body) != "3" {
		t.Errorf("the dead letter is %+v", buried)
	}
	put := must[[]*azservicebus.ReceivedMessage](t)(r.ReceiveDeferredMessages(b.soon(), []int64{*got[3].SequenceNumber}, nil))
	if len(put) != 1 || string(put[0].Body) != "4" {
		t.Fatalf("the deferred came as %+v", put)
	}
	// A message of another connection is settled by its token alone.
	if err := r.CompleteMessage(b.soon(), &azservicebus.ReceivedMessage{LockToken: put[0].LockToken}, nil); err != nil {
		t.Error(err)
	}
	b.wantCounts("orders", Counts{Locked: 1, DeadLettered: 1})
}

func TestLocks(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	b.queue("orders", QueueOptions{MaxDeliveryCount: 2})
	c := b.client()
	b.send(c, "orders", "1", "2")
	r := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", nil))
	got := b.receive(r, 2)
	b.clock.advance(b.Emulator, 45*time.Second)
	if err := r.RenewMessageLock(b.soon(), got[0], nil); err != nil {
		t.Fatal(err)
	}
	b.clock.advance(b.Emulator, 30*time.Second)
	b.wantCounts("orders", Counts{Locked: 1, Active: 1})
	if err := r.CompleteMessage(b.soon(), got[0], nil); err != nil {
		t.Error(err)
	}
	var failed *azservicebus.Error
	if err := r.CompleteMessage(b.soon(), got[1], nil); !errors.As(err, &failed) || failed.Code != azservicebus.CodeLockLost {
		t.Errorf("%v; want a lost lock", err)
	}
	if err := r.RenewMessageLock(b.soon(), got[1], nil); !errors.As(err, &failed) || failed.Code != azservicebus.CodeLockLost {
		t.Errorf("%v; want a lost lock", err)
	}
	if again := b.receive(r, 1)[0]; string(again.Body) != "2" || again.DeliveryCount != 2 {
		t.Errorf("%+v", again)
	}
	b.clock.advance(b.Emulator, 2*time.Minute)
	b.wantCounts("orders", Counts{DeadLettered: 1})
}

func TestScheduledAndExpired(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	b.queue("orders", QueueOptions{DeadLetterExpired: true})
	c := b.client()
	s := must[*azservicebus.Sender](t)(c.NewSender("orders", nil))
	numbers := must[[]int64](t)(s.ScheduleMessages(b.soon(), []*azservicebus.Message{{Body: []byte("1")}, {Body: []byte("2")}}, b.clock.now().Add(time.Hour), nil))
	if err := s.CancelScheduledMessages(b.soon(), numbers[1:], nil); err != nil {
		t.Fatal(err)
	}
	b.wantCounts("orders", Counts{Scheduled: 1})
	ttl := time.Minute
	if err := s.SendMessage(b.soon(), &azservicebus.Message{Body: []byte("short"), TimeToLive: &ttl}, nil); err != nil {
		t.Fatal(err)
	}
	b.wantCounts("orders", Counts{Scheduled: 1, Active: 1})
	b.clock.advance(b.Emulator, 2*time.Minute)
	b.wantCounts("orders", Counts{Scheduled: 1, DeadLettered: 1})
	b.clock.advance(b.Emulator, time.Hour)
	r := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", nil))
	if got := b.receive(r, 1)[0]; string(got.Body) != "1" {
		t.Errorf("%s", got.Body)
	}
}

func TestATopic(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	if err := b.CreateTopic("orders"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"billing", "stock"} {
		if err := b.CreateSubscription("orders", name, QueueOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c := b.client()
	s := must[*azservicebus.Sender](t)(c.NewSender("orders", nil))
	batch := must[*azservicebus.MessageBatch](t)(s.NewMessageBatch(b.soon(), nil))
	for i := range 10 {
		if err := batch.AddMessage(&azservicebus.Message{Body: fmt.Append(nil, i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SendMessageBatch(b.soon(), batch, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"billing", "stock"} {
		r := must[*azservicebus.Receiver](t)(c.NewReceiverForSubscription("orders", name, nil))
		for i, m := range b.receive(r, 10) {
			if string(m.Body) != fmt.Sprint(i) {
				t.Errorf("%s: message %d is %s", name, i, m.Body)
			}
			if err := r.CompleteMessage(b.soon(), m, nil); err != nil {
				t.Error(err)
			}
		}
		b.wantCounts("orders/Subscriptions/"+name, Counts{})
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	b.queue("orders", QueueOptions{RequiresSession: true})
	c := b.client()
	s := must[*azservicebus.Sender](t)(c.NewSender("orders", nil))
	for i := range 6 {
		id := fmt.Sprint("s", i%2)
		if err := s.SendMessage(b.soon(), &azservicebus.Message{Body: fmt.Append(nil, i), SessionID: &id}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SendMessage(b.soon(), &azservicebus.Message{}, nil); err == nil {
		t.Error("a message without a session was taken")
	}
	seen := map[string]bool{}
	for range 2 {
		r := must[*azservicebus.SessionReceiver](t)(c.AcceptNextSessionForQueue(b.soon(), "orders", nil))
		seen[r.SessionID()] = true
		if !r.LockedUntil().After(b.clock.now()) {
			t.Errorf("locked until %v", r.LockedUntil())
		}
		if err := r.SetSessionState(b.soon(), []byte("state of "+r.SessionID()), nil); err != nil {
			t.Fatal(err)
		}
		if state := must[[]byte](t)(r.GetSessionState(b.soon(), nil)); string(state) != "state of "+r.SessionID() {
			t.Errorf("%s", state)
		}
		if err := r.RenewSessionLock(b.soon(), nil); err != nil {
			t.Error(err)
		}
		before := -1
		for range 3 {
			got := must[[]*azservicebus.ReceivedMessage](t)(r.ReceiveMessages(b.soon(), 1, nil))
			var n int
			if _, err := fmt.Sscan(string(got[0].Body), &n); err != nil || n <= before || *got[0].SessionID != r.SessionID() {
				t.Errorf("%s after %d in %s", got[0].Body, before, r.SessionID())
			}
			before = n
			if err := r.CompleteMessage(b.soon(), got[0], nil); err != nil {
				t.Error(err)
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("sessions %v", seen)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.AcceptNextSessionForQueue(ctx, "orders", nil); err == nil {
		t.Error("a session without messages was given")
	}
	if _, err := c.AcceptSessionForQueue(b.soon(), "orders", "s0", nil); err == nil || !strings.Contains(err.Error(), "session-cannot-be-locked") {
		t.Errorf("%v; want that it is locked", err)
	}
	if _, err := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", nil)).ReceiveMessages(b.soon(), 1, nil); err == nil || !strings.Contains(err.Error(), "requires sessions") {
		t.Errorf("%v", err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Keys: []Key{{Name: "all", Key: "s3cret", Manage: true}, {Name: "listen", Key: "l1sten", Listen: true}}})
	b.queue("orders", QueueOptions{})
	sender := func(change func(string) string, path string) error {
		c := must[*azservicebus.Client](t)(azservicebus.NewClientFromConnectionString(change(b.ConnectionString(b.address)), &azservicebus.ClientOptions{RetryOptions: azservicebus.RetryOptions{MaxRetries: -1}}))
		defer func() { _ = c.Close(context.Background()) }()
		s := must[*azservicebus.Sender](t)(c.NewSender(path, nil))
		return s.SendMessage(b.soon(), &azservicebus.Message{Body: []byte("x")}, nil)
	}
	same := func(s string) string { return s }
	var failed *azservicebus.Error
	if err := sender(same, "orders"); err != nil {
		t.Error(err)
	}
	if err := sender(same, "nowhere"); !errors.As(err, &failed) || failed.Code != azservicebus.CodeNotFound {
		t.Errorf("%v; want not found", err)
	}
	if err := sender(func(s string) string { return strings.Replace(s, "s3cret", "other", 1) }, "orders"); !errors.As(err, &failed) || failed.Code != azservicebus.CodeUnauthorizedAccess {
		t.Errorf("%v; want unauthorized", err)
	}
	listen := func(s string) string {
		return strings.NewReplacer("s3cret", "l1sten", "Name=all", "Name=listen").Replace(s)
	}
	if err := sender(listen, "orders"); !errors.As(err, &failed) || failed.Code != azservicebus.CodeUnauthorizedAccess || !strings.Contains(err.Error(), "'Send' claim") {
		t.Errorf("%v; want that Send is missing", err)
	}
	for _, name := range []string{"", "a b", "-a", strings.Repeat("a", 261)} {
		if err := b.CreateQueue(name, QueueOptions{}); err == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
	if err := b.CreateQueue("ORDERS", QueueOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("%v", err)
	}
	b.Busy(true)
	if err := sender(same, "orders"); err == nil || !strings.Contains(err.Error(), "server-busy") {
		t.Errorf("%v; want busy", err)
	}
	b.Busy(false)
	if err := b.SetDisabled("orders", true); err != nil {
		t.Fatal(err)
	}
	if err := sender(same, "orders"); err == nil || !strings.Contains(err.Error(), "entity-disabled") {
		t.Errorf("%v; want disabled", err)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	b.queue("orders", QueueOptions{})
	c := b.client()
	s := must[*azservicebus.Sender](t)(c.NewSender("orders", nil))
	r := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", nil))
	for _, size := range []int{0, 1, 65_000, 200_000, 250_000} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(i)
		}
		if err := s.SendMessage(b.soon(), &azservicebus.Message{Body: body}, nil); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got := b.receive(r, 1)[0]; string(got.Body) != string(body) {
			t.Errorf("%d bytes came back as %d", size, len(got.Body))
		}
	}
	if err := s.SendMessage(b.soon(), &azservicebus.Message{Body: make([]byte, 400<<10)}, nil); err == nil {
		t.Error("400 KiB were taken")
	}
}

func TestLinksAndConnectionsThatEnd(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	b.queue("orders", QueueOptions{})
	c := b.client()
	r := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", nil))
	b.send(c, "orders", "1")
	first := b.receive(r, 1)[0]
	if err := b.DetachReceivers("orders"); err != nil {
		t.Fatal(err)
	}
	b.send(c, "orders", "2")
	if got := b.receive(r, 1)[0]; string(got.Body) != "2" {
		t.Errorf("%s", got.Body)
	}
	b.DropConnections()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for { // until it has noticed
		if err := r.CompleteMessage(ctx, &azservicebus.ReceivedMessage{LockToken: first.LockToken}, nil); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	b.wantCounts("orders", Counts{Locked: 1})
}

// The SDK releases messages that it has requested and not returned.
func TestWhatWasAskedForAndNotWanted(t *testing.T) {
	t.Parallel()
	const n = 2000
	b := start(t, Options{})
	b.queue("orders", QueueOptions{})
	c := b.client()
	s := must[*azservicebus.Sender](t)(c.NewSender("orders", nil))
	batch := must[*azservicebus.MessageBatch](t)(s.NewMessageBatch(b.soon(), nil)) // of several frames
	for i := range n {
		if err := batch.AddMessage(&azservicebus.Message{Body: fmt.Append(nil, i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SendMessageBatch(b.soon(), batch, nil); err != nil {
		t.Fatal(err)
	}
	b.wantCounts("orders", Counts{Active: n})
	r := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", nil))
	seen := map[string]bool{}
	for len(seen) < n {
		got := must[[]*azservicebus.ReceivedMessage](t)(r.ReceiveMessages(b.soon(), n-len(seen), &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: time.Nanosecond}))
		for _, m := range got {
			if seen[string(m.Body)] || m.DeliveryCount != 1 {
				t.Errorf("%s, delivery %d", m.Body, m.DeliveryCount)
			}
			seen[string(m.Body)] = true
			if err := r.CompleteMessage(b.soon(), m, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.wantCounts("orders", Counts{})
}

func TestServeAfterClose(t *testing.T) {
	t.Parallel()
	e := New(Options{})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serve(l); err != nil {
		t.Errorf("Serve of a closed emulator: %v", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is open")
	}
}
