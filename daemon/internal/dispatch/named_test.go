package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// inbox is a destination that keeps messages in order, once they are flushed. Send fails if
// refuse returns an error.
type inbox struct {
	mu     sync.Mutex
	sent   []triggers.Message // since the last flush
	got    []triggers.Message
	refuse func(body string) error
}

func (i *inbox) Send(_ context.Context, m *triggers.Message) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.refuse != nil {
		if err := i.refuse(string(m.Body)); err != nil {
			return err
		}
	}
	i.sent = append(i.sent, *m)
	return nil
}

func (i *inbox) Flush(context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.got, i.sent = append(i.got, i.sent...), nil
	return nil
}

// Close drops messages that were not flushed.
func (i *inbox) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sent = nil
	return nil
}

func (i *inbox) ConfirmedCount() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return int64(len(i.got))
}

func (i *inbox) refuseWith(f func(body string) error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refuse = f
}

func (i *inbox) bodies() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []string
	for _, m := range i.got {
		out = append(out, string(m.Body))
	}
	return strings.Join(out, " ")
}

// named runs a function with an output for each key; "" is one for the plain result.
func named(t *testing.T, lanes int, f handlers.Func, keys ...string) (*testBed, map[string]*inbox) {
	b := makeBed(t, 10, f)
	boxes := make(map[string]*inbox)
	for _, key := range keys {
		to := new(inbox)
		o := NewOutput(OutputConfig{Open: func(context.Context) (Sender, func() error, error) {
			return to, to.Close, nil
		}, Name: "box " + key, Key: key, Lanes: lanes, Log: b.function.Log})
		o.Start(context.Background())
		boxes[key], b.function.Outputs = to, append(b.function.Outputs, o)
		if key != "" {
			b.function.OutputNames = append(b.function.OutputNames, key)
		}
	}
	b.stopOutputs = func() {
		for _, o := range b.function.Outputs {
			o.closeLanes()
		}
	}
	b.run()
	return b, boxes
}

func wantBodies(t *testing.T, boxes map[string]*inbox, want map[string]string) {
	t.Helper()
	for key, box := range boxes {
		if got := box.bodies(); got != want[key] {
			t.Errorf("the output %q has %q, want %q", key, got, want[key])
		}
	}
}

// Each named output gets the function's messages to it, in order and with their properties; the plain
// result goes to the others.
func TestNamedOutputs(t *testing.T) {
	for _, lanes := range []int{1, 32} {
		synctest.Test(t, func(t *testing.T) {
			b, boxes := named(t, lanes, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
				inner, cancel := context.WithTimeout(ctx, time.Second) // of a library that derives its own context
				defer cancel()
				for i := range 20 {
					if err := handlers.Send(inner, "audit", fmt.Append(nil, i), nil); err != nil {
						return nil, err
					}
				}
				about := triggers.Properties{triggers.SessionID: "s7", triggers.ContentType: "text/csv", triggers.AttributePrefix + "color": "red"}
				return []byte("plain"), handlers.Send(ctx, "receipts", []byte("receipt"), about)
			}, "", "receipts", "audit", "unused")
			b.queue.Send(triggers.Message{Body: []byte("a"), Attributes: map[string]string{"traceparent": unsampled}})
			synctest.Wait()
			if err := b.stop(); err != nil {
				t.Error(err)
			}
			wantBodies(t, boxes, map[string]string{"": "plain", "receipts": "receipt", "audit": "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19"})
			b.wantCounts(1, 0, 0, 0)
			m := boxes["receipts"].got[0]
			if m.OrderingKey != "s7" || m.Property(triggers.ContentType) != "text/csv" || !maps.Equal(m.Attributes, map[string]string{"color": "red", "traceparent": unsampled}) {
				t.Errorf("the receipt is %+v", m)
			}
		})
	}
}

// Messages of a failed attempt are dropped, also if the attempt runs again without being counted.
func TestAFailedAttemptSendsNothing(t *testing.T) {
	for name, first := range map[string]error{"failed": errors.New("no luck"), "run again": handlers.ErrRunAgain, "released": handlers.ErrNotTried} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				b, boxes := named(t, 1, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
					tries++
					if err := handlers.Send(ctx, "a", fmt.Append(nil, "try ", tries), nil); err != nil {
						return nil, err
					}
					if tries == 1 {
						return nil, first
					}
					return nil, nil
				}, "a")
				b.send("x")
				time.Sleep(time.Minute)
				synctest.Wait()
				_ = b.stop()
				wantBodies(t, boxes, map[string]string{"a": "try 2"})
			})
		})
	}
}

// A message for an output that the function does not have is rejected, with the names of those
// that it has.
func TestAnUnknownOutput(t *testing.T) {
	for want, keys := range map[string][]string{
		`the function has no output "recipts"; it has: receipts, $return`:                                                  {"", "receipts", "$return"},
		`it sends to the output "recipts", and the function has no named outputs; give one this name in the configuration`: {""},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, boxes := named(t, 1, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
				if len(keys) > 1 {
					if err := handlers.Send(ctx, "receipts", []byte("1"), nil); err != nil {
						return nil, err
					}
				}
				return []byte("plain"), handlers.Send(ctx, "recipts", nil, nil)
			}, keys...)
			b.send("x")
			synctest.Wait()
			_ = b.stop()
			wantBodies(t, boxes, nil)
			b.wantCounts(0, 0, 1, 0)
			if dead := b.queue.Dead(); len(dead) != 1 || dead[0].Verdict.Reason != want {
				t.Errorf("the dead letters are %+v, want %q", dead, want)
			}
		})
	}
}

// An output that refuses a message gets the rest once it accepts it, in order. What an output has
// accepted is not sent to it again.
func TestAnOutputThatRefusesOneOfSeveral(t *testing.T) {
	for _, lanes := range []int{1, 32} {
		synctest.Test(t, func(t *testing.T) {
			b, boxes := named(t, lanes, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
				for _, body := range []string{"1", "2", "3", "4"} {
					if err := errors.Join(handlers.Send(ctx, "a", []byte(body), nil), handlers.Send(ctx, "b", []byte(body), nil)); err != nil {
						return nil, err
					}
				}
				return []byte("plain"), nil
			}, "", "a", "b")
			boxes["b"].refuseWith(func(body string) error {
				if body == "3" {
					return errAway
				}
				return nil
			})
			b.send("x")
			time.Sleep(time.Minute)
			synctest.Wait()
			b.wantCounts(0, 0, 0, 0)
			if blocked := b.function.ListBlockages(); len(blocked) != 1 || blocked[0].Output != "box b" {
				t.Errorf("the blockages are %+v", blocked)
			}
			if got := boxes["b"].bodies(); strings.Contains(got, "4") {
				t.Errorf("the output has %q: 4 has overtaken 3", got)
			}
			boxes["b"].refuseWith(nil)
			time.Sleep(time.Minute)
			synctest.Wait()
			_ = b.stop()
			wantBodies(t, boxes, map[string]string{"": "plain", "a": "1 2 3 4", "b": "1 2 3 4"})
			b.wantCounts(1, 0, 0, 0)
		})
	}
}

// A message that an output can never accept rejects the function's message. What comes after it is
// not sent to that output.
func TestANamedMessageThatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, boxes := named(t, 1, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
			for _, body := range []string{"1", "large", "3"} {
				if err := handlers.Send(ctx, "a", []byte(body), nil); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}, "a")
		boxes["a"].refuseWith(func(body string) error {
			if body == "large" {
				return triggers.ErrTooLarge
			}
			return nil
		})
		b.send("x")
		synctest.Wait()
		_ = b.stop()
		wantBodies(t, boxes, map[string]string{"a": "1"})
		b.wantCounts(0, 0, 1, 0)
	})
}

// The results of several calls are sent together. One that fails does not fail those of other calls.
func TestResultsOfSeveralCallsInOneBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := new(bulk)
		o := NewOutput(OutputConfig{Open: func(context.Context) (Sender, func() error, error) {
			return to, func() error { to.sent = nil; return nil }, nil
		}, Name: "s", Lanes: 1, Log: slog.New(slog.DiscardHandler)})
		o.Start(context.Background())
		type outcome struct {
			accepted int
			err      error
		}
		var mu sync.Mutex
		results := make(map[string]outcome)
		var all sync.WaitGroup
		for _, bodies := range []string{"a", "b1 b2", "c1 large c3", "d1 d2"} { // a is sent alone, and the others while that takes a second
			all.Go(func() {
				var out []outgoing
				for body := range strings.FieldsSeq(bodies) {
					out = append(out, outgoing{body: []byte(body)})
				}
				n, err := o.sendResults(context.Background(), &triggers.Message{}, out)
				mu.Lock()
				defer mu.Unlock()
				results[bodies] = outcome{n, err}
			})
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		o.closeLanes()
		all.Wait()
		if got := strings.Join(to.got, ""); got != "a b1b2c1  d1 d2 " {
			t.Errorf("it has taken %q", got)
		}
		for bodies, want := range map[string]outcome{"a": {1, nil}, "b1 b2": {2, nil}, "c1 large c3": {1, triggers.ErrTooLarge}, "d1 d2": {2, nil}} {
			if got := results[bodies]; got.accepted != want.accepted || !errors.Is(got.err, want.err) {
				t.Errorf("%s: %+v, want %+v", bodies, got, want)
			}
		}
	})
}

// A function may send from many goroutines, but not after it has returned.
func TestSendFromGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan error, 1)
		b, boxes := named(t, 1, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					if err := handlers.Send(ctx, "a", []byte("x"), nil); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			go func() {
				time.Sleep(time.Minute)
				late <- handlers.Send(ctx, "a", []byte("late"), nil)
			}()
			return nil, nil
		}, "a")
		b.send("m")
		if err := <-late; !errors.Is(err, errReturned) {
			t.Errorf("got %v", err)
		}
		_ = b.stop()
		if got := boxes["a"].bodies(); got != strings.TrimSpace(strings.Repeat("x ", 50)) {
			t.Errorf("the output has %q", got)
		}
	})
}

// RunOne returns the messages that the function sent, without sending them to outputs.
func TestRunOneReturnsNamedMessages(t *testing.T) {
	b := makeBed(t, 1, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
		if err := handlers.Send(ctx, "a", m.Body, triggers.Properties{triggers.Subject: "s"}); err != nil {
			return nil, err
		}
		if string(m.Body) == "bad" {
			return nil, errors.New("no good")
		}
		return nil, nil
	})
	defer b.queue.Close()
	b.function.OutputNames = []string{"a"}
	for body, want := range map[string]int{"good": 1, "bad": 0} {
		if err := b.function.Share.Claim(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := b.function.RunOne(t.Context(), triggers.NewDelivery(&triggers.Message{ID: "1", Attempt: 1, Body: []byte(body)}, new(settled)))
		if len(r.Named) != want || want == 1 && (r.Named[0].Output != "a" || string(r.Named[0].Body) != body || r.Named[0].Properties[triggers.Subject] != "s") {
			t.Errorf("%s: %+v", body, r)
		}
	}
}

// A message of a function without named outputs costs no more allocations than its result needs.
func TestPlainResultsCostNothingMore(t *testing.T) {
	o := NewOutput(OutputConfig{Open: func(context.Context) (Sender, func() error, error) {
		return new(drain), func() error { return nil }, nil
	}, Name: "a", Lanes: 1, Log: slog.New(slog.DiscardHandler)})
	o.Start(t.Context())
	defer o.closeLanes()
	f := testFunction("f", nil, nil, nil, slog.New(slog.DiscardHandler))
	f.working, f.Outputs = context.Background(), []*Output{o}
	x := &execution{f: f, message: &triggers.Message{ID: "1"}, callResult: callResult{output: []byte("x")}}
	send := func() {
		x.dropNamed(true)
		if err := x.sendOutputs(); err != nil {
			t.Error(err)
		}
	}
	send()
	// The result, its channel, the list of one, and the pause before a retry.
	if n := testing.AllocsPerRun(100, send); n > 4 {
		t.Errorf("%v allocations", n)
	}
	// The allocator rounds up to 288 bytes, and then to 320.
	if n := unsafe.Sizeof(execution{}); n > 288 {
		t.Errorf("an execution has %d bytes", n)
	}
}

// drain accepts everything.
type drain struct{ n int64 }

func (d *drain) Send(context.Context, *triggers.Message) error { d.n++; return nil }
func (d *drain) Flush(context.Context) error                   { return nil }
func (d *drain) ConfirmedCount() int64                         { return d.n }
