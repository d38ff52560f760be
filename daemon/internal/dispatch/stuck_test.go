package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// graveless is a source that refuses one kind of verdict.
type graveless struct {
	triggers.Trigger
	mu      sync.Mutex
	refuses triggers.Kind
}

var errNoGrave = errors.New("there is no dead-letter queue; make it")

func (g *graveless) refuse(kind triggers.Kind) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuses = kind
}

func (g *graveless) Receive(ctx context.Context, n int) ([]*triggers.Delivery, error) {
	got, err := g.Trigger.Receive(ctx, n)
	for i, d := range got {
		got[i] = triggers.NewDelivery(d.Message, gravelessLease{g, d})
	}
	return got, err
}

type gravelessLease struct {
	g *graveless
	d *triggers.Delivery
}

func (l gravelessLease) Settle(ctx context.Context, _ *triggers.Message, v triggers.Verdict) error {
	l.g.mu.Lock()
	refused := l.g.refuses == v.Kind
	l.g.mu.Unlock()
	if refused {
		return errNoGrave
	}
	return l.d.Settle(ctx, v)
}

// startGraveless runs a function that rejects messages that begin with bad.
func startGraveless(t *testing.T, slots int) (*testBed, *graveless) {
	b := &testBed{t: t, queue: memory.New(time.Hour), slots: handlers.NewSlots(slots), ended: make(chan error, 1)}
	source := &graveless{Trigger: b.queue.Trigger(), refuses: triggers.Reject}
	b.function = testFunction("f", handlers.Func(func(_ context.Context, m *triggers.Message) ([]byte, error) {
		if strings.HasPrefix(string(m.Body), "bad") {
			return nil, handlers.Reject(errors.New("no good"))
		}
		return nil, nil
	}), source, b.slots.Share(0), slog.New(slog.NewTextHandler(&b.log, nil)))
	b.run()
	return b, source
}

// Dead letters that cannot be written hold no slot: other messages are handled, and status and
// explanations have the reason. The log reports them as moved only afterwards.
func TestARefusedVerdictHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, source := startGraveless(t, 2)
		b.send("bad1", "bad2", "bad3", "good")
		time.Sleep(time.Minute)
		synctest.Wait()
		b.wantCounts(1, 0, 0, 0)
		if used := b.function.Share.Used(); used != 0 {
			t.Errorf("%d slots are taken by messages that cannot be settled", used)
		}
		if strings.Contains(b.log.String(), "dead-lettered") {
			t.Errorf("the log says that a message was dead-lettered, which it was not:\n%s", b.log.String())
		}
		if got := strings.Count(b.log.String(), "message not settled"); got != 3 {
			t.Errorf("%d refusals were logged, want one of each message:\n%s", got, b.log.String())
		}
		blocked := b.function.ListBlockages()
		if len(blocked) != 1 || blocked[0].Output != "" || blocked[0].Messages != 3 || blocked[0].Full ||
			time.Since(blocked[0].Since) != time.Minute || !strings.Contains(blocked[0].Text, errNoGrave.Error()) {
			t.Fatalf("the blockages are %+v", blocked)
		}
		if m, found := b.function.FindInFlight(blocked[0].Message); !found || !strings.Contains(m.Blocked, errNoGrave.Error()) || time.Since(m.BlockedSince) != time.Minute {
			t.Errorf("the message is reported as %+v", m)
		}
		source.refuse(0)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.wantCounts(1, 0, 3, 0)
		if blocked := b.function.ListBlockages(); len(blocked) != 0 {
			t.Errorf("the blockages are still %+v", blocked)
		}
		if got := strings.Count(b.log.String(), "message dead-lettered"); got != 3 {
			t.Errorf("%d messages are logged as dead-lettered, want 3:\n%s", got, b.log.String())
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		if got := len(b.queue.Dead()); got != 3 {
			t.Errorf("%d dead letters, want 3", got)
		}
	})
}

// The number of messages that cannot be settled is bounded: at the bound nothing is received.
func TestRefusedVerdictsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, sent = 8, 2 * maxUnsettled
		b, source := startGraveless(t, slots)
		for n := range sent {
			b.send(fmt.Sprint("bad", n))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := b.function.Stats.InFlight(); got < maxUnsettled || got > maxUnsettled+2*slots { // those in flight, and those that are being received
			t.Errorf("%d messages are held, want %d, or up to %d more", got, maxUnsettled, 2*slots)
		}
		if blocked := b.function.ListBlockages(); len(blocked) != 1 || !blocked[0].Full {
			t.Errorf("the blockages are %+v", blocked)
		}
		source.refuse(0)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.wantCounts(0, 0, sent, 0)
		_ = b.stop()
	})
}

// The bodies of messages that cannot be settled are bounded, too.
func TestRefusedVerdictsAreBoundedInBytes(t *testing.T) {
	var s stuck
	half := triggers.NewDelivery(&triggers.Message{Body: make([]byte, maxUnsettledBytes/2)}, nil)
	other := triggers.NewDelivery(&triggers.Message{Body: make([]byte, maxUnsettledBytes/2)}, nil)
	s.addBlocked(blockedAt{delivery: half}, refusal{})
	s.addBlocked(blockedAt{delivery: other, output: "an output"}, refusal{}) // it holds its slot
	if err := s.waitForRoom(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.addBlocked(blockedAt{delivery: other}, refusal{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.waitForRoom(ended); err == nil {
		t.Error("there is room for more than the bound")
	}
	s.removeBlocked(blockedAt{delivery: half})
	if err := s.waitForRoom(ended); err != nil {
		t.Error("there is no room, though one was settled")
	}
}

// A stop does not wait for a missing dead-letter queue: the messages are released and redelivered.
func TestAStopGivesBackWhatCannotBeDeadLettered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := startGraveless(t, 2)
		b.send("bad1", "bad2", "bad3")
		time.Sleep(time.Minute)
		synctest.Wait()
		began := time.Now()
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
		b.wantCounts(0, 0, 0, 3)
		if waiting := b.backlog(); waiting != 3 {
			t.Errorf("%d messages wait, want 3", waiting)
		}
	})
}

// A message whose verdict is never accepted is not counted as rejected: it is abandoned and
// redelivered.
func TestAVerdictThatIsNeverTakenIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, source := startGraveless(t, 2)
		source.refuse(triggers.Done)
		b.send("good")
		time.Sleep(time.Minute)
		synctest.Wait()
		b.stopReceiving()
		b.stopSettling()
		_ = b.stop()
		b.wantCounts(0, 0, 0, 0)
		if s := b.function.Stats.ReadCounts(); s.Abandoned != 1 || s.InFlight != 0 {
			t.Errorf("abandoned %d, in flight %d; want 1 and 0", s.Abandoned, s.InFlight)
		}
	})
}
