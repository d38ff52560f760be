package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// place is a destination of results, in memory.
type place struct {
	name string

	mu   sync.Mutex
	got  []string
	fail error // the error of each send
}

func (p *place) Send(_ context.Context, m *triggers.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return p.fail
	}
	p.got = append(p.got, string(m.Body))
	return nil
}

func (p *place) Flush(context.Context) error { return nil }
func (p *place) ConfirmedCount() int64       { return 0 }

func (p *place) failWith(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

func (p *place) want(t *testing.T, bodies ...string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := slices.Sorted(slices.Values(p.got)); !slices.Equal(got, bodies) {
		t.Errorf("%s has %q, want %q", p.name, got, bodies)
	}
}

// sending runs a function that returns its input, with n outputs.
func sending(t *testing.T, n int) (*testBed, []*place) {
	b := makeBed(t, 10, func(_ context.Context, m *triggers.Message) ([]byte, error) { return m.Body, nil })
	places := make([]*place, n)
	for i := range places {
		p := &place{name: fmt.Sprint("place ", i)}
		o := NewOutput(OutputConfig{Open: func(context.Context) (Sender, func() error, error) {
			return p, func() error { return nil }, nil
		}, Name: "subject " + p.name + " on c", Subject: p.name, Lanes: 1, Log: b.function.Log})
		o.Start(context.Background())
		places[i], b.function.Outputs = p, append(b.function.Outputs, o)
	}
	b.stopOutputs = func() {
		for _, o := range b.function.Outputs {
			o.closeLanes()
		}
	}
	b.run()
	return b, places
}

var errAway = errors.New("it is away")

func TestEachResultGoesToAllOutputs(t *testing.T) {
	for _, outputs := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			b, places := sending(t, outputs)
			b.send("a", "b", "c")
			synctest.Wait()
			if err := b.stop(); err != nil {
				t.Error(err)
			}
			for _, p := range places {
				p.want(t, "a", "b", "c")
			}
			b.wantCounts(3, 0, 0, 0)
		})
	}
}

// An output that is unreachable holds the message. The result is not sent to the others again.
func TestAnOutputThatIsAwayHoldsTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, places := sending(t, 3)
		places[1].failWith(errAway)
		b.send("a")
		time.Sleep(time.Minute)
		synctest.Wait()
		places[0].want(t, "a")
		places[1].want(t)
		places[2].want(t, "a")
		b.wantCounts(0, 0, 0, 0)
		places[1].failWith(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		_ = b.stop()
		for _, p := range places {
			p.want(t, "a")
		}
		b.wantCounts(1, 0, 0, 0)
		if want := `cannot send a result; will retry until it works" function=f message=1 to="subject place 1 on c" error="it is away"`; !strings.Contains(b.log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, b.log.String())
		}
	})
}

// If a result can never be sent to one output, the message is rejected at once, whatever the other
// outputs return.
func TestAResultThatIsUnfitForOneOutput(t *testing.T) {
	for _, outputs := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			b, places := sending(t, outputs)
			places[0].failWith(fmt.Errorf("a MiB is %w", triggers.ErrTooLarge))
			for _, p := range places[1:] {
				p.failWith(errAway)
			}
			b.send("a")
			time.Sleep(time.Second)
			synctest.Wait()
			_ = b.stop()
			b.wantCounts(0, 0, 1, 0)
			dead := b.queue.Dead()
			if len(dead) != 1 || dead[0].Verdict.Reason != "the result, to subject place 0 on c: a MiB is the message is too large" {
				t.Errorf("the dead letters are %+v", dead)
			}
		})
	}
}

// bulk is a destination that takes batches. Each batch takes a while.
type bulk struct {
	got  []string // the accepted messages, and " " after each batch
	sent []string // sent since the last batch
}

func (b *bulk) Send(_ context.Context, m *triggers.Message) error {
	switch string(m.Body) {
	case "large":
		return triggers.ErrTooLarge
	case "refused":
		return errAway
	}
	b.sent = append(b.sent, string(m.Body))
	return nil
}

func (b *bulk) Flush(context.Context) error {
	time.Sleep(time.Second)
	b.got, b.sent = append(append(b.got, b.sent...), " "), nil
	return nil
}

func (b *bulk) ConfirmedCount() (n int64) {
	for _, body := range b.got {
		if body != " " {
			n++
		}
	}
	return n
}

// Results that are sent together with one that cannot be sent are sent once.
func TestABatchWithAResultThatCannotBeSent(t *testing.T) {
	for body, want := range map[string]struct {
		got  string
		fail error
	}{"large": {"a bc  d ", triggers.ErrTooLarge}, "refused": {"a b c d ", errAway}} {
		synctest.Test(t, func(t *testing.T) {
			to := new(bulk)
			o := NewOutput(OutputConfig{Open: func(context.Context) (Sender, func() error, error) {
				return to, func() error { to.sent = nil; return nil }, nil
			}, Name: "s", Subject: "s", Lanes: 1, Log: slog.New(slog.DiscardHandler)})
			o.Start(context.Background())
			var all sync.WaitGroup
			results := make(map[string]error)
			var mu sync.Mutex
			for _, each := range []string{"a", "b", "c", body, "d"} {
				all.Go(func() {
					_, err := o.sendResults(context.Background(), &triggers.Message{ID: each}, []outgoing{{body: []byte(each)}})
					mu.Lock()
					defer mu.Unlock()
					results[each] = err
				})
				synctest.Wait()
			}
			time.Sleep(time.Minute)
			o.closeLanes()
			all.Wait()
			if got := strings.Join(to.got, ""); got != want.got {
				t.Errorf("%s: it has taken %q, want %q", body, got, want.got)
			}
			for each, err := range results {
				if each == body != (err != nil) || err != nil && !errors.Is(err, want.fail) {
					t.Errorf("%s: the result %s ends with %v", body, each, err)
				}
			}
		})
	}
}

func TestAStopGivesBackWhatWasNotSent(t *testing.T) {
	for _, outputs := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			b, places := sending(t, outputs)
			places[outputs-1].failWith(errAway)
			b.send("a")
			synctest.Wait()
			b.stopReceiving() // otherwise it would be received again and again
			b.stopWorking()
			synctest.Wait()
			b.wantCounts(0, 0, 0, 1)
			_ = b.stop()
		})
	}
}

// If a function that was given up returns after all, its result is not sent.
func TestAResultAfterTheEnd(t *testing.T) {
	o := NewOutput(OutputConfig{Name: "a", Lanes: 1})
	o.Start(t.Context())
	o.closeLanes()
	f := testFunction("f", nil, nil, nil, slog.New(slog.DiscardHandler))
	f.working, f.Outputs = context.Background(), []*Output{o}
	if err := (&execution{f: f, message: &triggers.Message{ID: "1"}, callResult: callResult{output: []byte("x")}}).sendOutputs(); !errors.Is(err, handlers.ErrNotTried) {
		t.Errorf("got %v", err)
	}
}
