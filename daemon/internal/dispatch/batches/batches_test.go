package batches_test

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

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/dispatch/batches"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

var errBad = errors.New("a bad message")

func TestMessagesThatAreThereAreOneBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, 100, batches.Config{Size: 10}, allDone)
		synctest.Wait()
		b.send("alone")
		time.Sleep(10 * time.Millisecond)
		b.wantSizes(1)
		for _, body := range numbers(25) { // one after the other
			b.send(body)
			time.Sleep(900 * time.Microsecond)
		}
		time.Sleep(10 * time.Millisecond)
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantCounts(26, 0, 0, 0)
		b.wantSizes(1, 10, 10, 5)
		if got := b.function.Stats.Batches.ReadTotals(); got.Messages != 26 || got.Calls != int64(len(b.sizes())) || got.Splits != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestABatchOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, 4, batches.Config{Size: 1}, failsWith("1"))
		b.send(numbers(3)...)
		synctest.Wait()
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantSizes(1, 1, 1)
		b.wantCounts(2, 0, 1, 0)
	})
}

func TestABatchWaitsForMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, 100, batches.Config{Size: 5, Min: 3, Window: 10 * time.Second}, allDone)
		b.send("a")
		time.Sleep(time.Second)
		b.send("b")
		synctest.Wait()
		b.wantSizes()
		time.Sleep(9 * time.Second) // ten seconds after the first
		synctest.Wait()
		b.wantSizes(2)
		b.send("c")
		time.Sleep(time.Second)
		b.send("d")
		synctest.Wait()
		b.wantSizes(2)
		b.send("e") // as many as are waited for
		synctest.Wait()
		b.wantSizes(2, 3)
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantCounts(5, 0, 0, 0)
	})
}

// A batch does not wait for messages that cannot be received.
func TestABatchWaitsForNoMoreThanTheSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, 2, batches.Config{Size: 10, Min: 10, Window: time.Hour}, allDone)
		b.send("a", "b")
		synctest.Wait()
		if got := b.sizes(); len(got) == 0 || got[0]+got[len(got)-1]*min(len(got)-1, 1) != 2 {
			t.Errorf("calls with %v messages, of 2 that fill the slots", got)
		}
		b.wantCounts(2, 0, 0, 0)
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestADrainRunsHalfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, 100, batches.Config{Size: 10, Min: 10, Window: time.Hour}, allDone)
		b.send(numbers(5)...)
		synctest.Wait()
		b.wantSizes()
		begin := time.Now()
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the drain took %v", took)
		}
		b.wantCounts(5, 0, 0, 0)
	})
}

// The messages of one ordering key run in order, also several of them in a batch, and one that
// fails holds back later ones.
func TestTheOrderOfAKey(t *testing.T) {
	keys := []string{"a", "b", "c"}
	for _, test := range []struct{ together, size, slots int }{{1, 10, 20}, {10, 10, 40}, {10, 2, 40}, {3, 5, 7}, {10, 10, 2}} {
		for _, verdicts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v %v", test, verdicts), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					seen, failed, most := make(map[string][]string), false, 0
					var mu sync.Mutex
					b := startBed(t, test.slots, batches.Config{Size: test.size}, func(_ context.Context, bodies []string, messages []*triggers.Message) ([]handlers.Result, error) {
						time.Sleep(time.Millisecond)
						mu.Lock()
						defer mu.Unlock()
						out := make([]handlers.Result, len(messages))
						after := slices.Index(bodies, "a2")
						if after >= 0 && !failed {
							if failed = len(bodies) == 1 || verdicts; !verdicts {
								return nil, errBad
							}
							out[after].Err = errBad
						} else {
							after = len(bodies)
						}
						own := make(map[string]int)
						for i, m := range messages {
							if m.OrderingKey == "a" && i > after {
								out[i].Err = handlers.ErrNotTried // as a function does that stops at the first failure
							}
							if own[m.OrderingKey]++; out[i].Err == nil {
								seen[m.OrderingKey] = append(seen[m.OrderingKey], string(m.Body))
							}
							most = max(most, own[m.OrderingKey])
						}
						return out, nil
					}, func(c *dispatch.Config) {
						c.Trigger, c.Retry.MaxAttempts = triggers.OrderedTogether(c.Trigger, test.together), 2
					})
					for n := range 9 {
						for _, key := range keys {
							b.queue.Send(triggers.Message{Body: fmt.Append(nil, key, n), OrderingKey: key})
						}
					}
					time.Sleep(time.Minute)
					if err := b.stop(); err != nil {
						t.Error(err)
					}
					for _, key := range keys {
						if got := strings.Join(seen[key], " "); got != strings.ReplaceAll("k0 k1 k2 k3 k4 k5 k6 k7 k8", "k", key) {
							t.Errorf("key %s: %s", key, got)
						}
					}
					if s := b.function.Stats.ReadCounts(); s.Done != 27 || s.Retried != 1 || s.Rejected != 0 {
						t.Errorf("done %d, retried %d, rejected %d", s.Done, s.Retried, s.Rejected)
					}
					if most > min(test.together, test.size) || test.together > 1 && test.slots > 20 && most < 2 {
						t.Errorf("a batch had %d messages of one key", most)
					}
				})
			})
		}
	}
}

// slotted is a handler with slots for its calls.
type slotted struct {
	handlers.BatchFunc
	slots *handlers.Slots
}

func (s slotted) Slots() *handlers.Slots { return s.slots }

// While all workers are busy, messages are collected for the next call. Other functions of the pool
// get slots in between.
func TestMessagesAreCollectedWhileWorkersAreBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, queue: memory.New(time.Hour), ended: make(chan error, 1)}
		pool := handlers.NewSlots(1)
		b.startWith(slotted{b.recorded(func(context.Context, []string, []*triggers.Message) ([]handlers.Result, error) {
			time.Sleep(time.Second)
			return nil, nil
		}), pool}, 0, batches.Config{Size: 10})
		if n := b.batches.Slots().Capacity(); n != 10 {
			t.Errorf("slots for %d messages, want 10: one call", n)
		}
		b.send("first")
		time.Sleep(10 * time.Millisecond)
		if used := pool.Share(0).Use().All; used != 1 {
			t.Errorf("%d slots of the pool are in use, want 1", used)
		}
		for _, body := range numbers(7) {
			b.send(body)
			synctest.Wait()
		}
		time.Sleep(1500 * time.Millisecond)
		b.wantSizes(1, 7)
		pool.Resize(3)
		if n := b.batches.Slots().Capacity(); n != 30 {
			t.Errorf("slots for %d messages, want 30: three calls", n)
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		if used := pool.Share(0).Use().All; used != 0 {
			t.Errorf("%d slots of the pool are still in use", used)
		}
		b.wantCounts(8, 0, 0, 0)
	})
}

// A function that moves to other workers uses their slots.
func TestAMoveToOtherWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := handlers.NewSlots(1), handlers.NewSlots(2)
		h := batches.New(slotted{func(context.Context, []*triggers.Message) ([]handlers.Result, error) {
			time.Sleep(time.Second)
			return nil, nil
		}, from}, batches.Config{Size: 5, Counts: new(batches.Counts), Log: slog.New(slog.DiscardHandler)})
		done := make(chan error, 1)
		go func() {
			_, err := h.Handle(t.Context(), &triggers.Message{})
			done <- err
		}()
		synctest.Wait()
		if moved := h.MoveCalls(to); moved != h.Slots() || moved.Capacity() != 10 {
			t.Errorf("slots for %d messages, want 10", h.Slots().Capacity())
		}
		if a, b := from.Share(0).Use().All, to.Share(0).Use().All; a != 0 || b != 1 {
			t.Errorf("%d and %d slots are in use, want 0 and 1", a, b)
		}
		from.Resize(100)
		if n := h.Slots().Capacity(); n != 10 {
			t.Errorf("it follows the slots that it has left: %d", n)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A call with several traced messages has a span with links to all of them.
func TestTheSpanOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exported := tracetest.NewInMemoryExporter()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exported))
		var inCall trace.SpanContext
		b := startBed(t, 5, batches.Config{Size: 3, Min: 3, Window: time.Second}, func(ctx context.Context, bodies []string, _ []*triggers.Message) ([]handlers.Result, error) {
			if len(bodies) > 1 {
				inCall = trace.SpanContextFromContext(ctx)
			}
			return nil, nil
		}, func(c *dispatch.Config) {
			c.Spans = dispatch.NewSpans(provider.Tracer("test"), 1, "f", dispatch.Entity{System: "nats", Name: "queue"})
		})
		b.send("a", "b", "c")
		synctest.Wait()
		b.send("alone")
		time.Sleep(2 * time.Second)
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		b.wantSizes(3, 1)
		processes, calls := make(map[trace.SpanID]bool), 0
		for _, s := range exported.GetSpans() {
			if s.Name == "process queue" {
				processes[s.SpanContext.SpanID()] = true
			}
		}
		for _, s := range exported.GetSpans() {
			if s.Name != "process batch f" {
				continue
			}
			calls++
			if len(s.Links) != 3 || s.SpanContext.SpanID() != inCall.SpanID() || !processes[s.Parent.SpanID()] {
				t.Errorf("%d links, parent %v, span %v; in the call %v", len(s.Links), s.Parent, s.SpanContext, inCall)
			}
			for _, link := range s.Links {
				if !processes[link.SpanContext.SpanID()] {
					t.Errorf("a link to %v, which is no process span", link.SpanContext)
				}
			}
		}
		if calls != 1 || len(processes) != 4 {
			t.Errorf("%d spans of calls, and %d of messages", calls, len(processes))
		}
	})
}
