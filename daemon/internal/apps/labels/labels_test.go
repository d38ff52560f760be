package labels

import (
	"context"
	"errors"
	"runtime/pprof"
	"testing"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMark(t *testing.T) {
	var label string
	var set bool
	note := func(ctx context.Context) { label, set = pprof.Label(ctx, Key) }
	failure := errors.New("it failed")
	single, one := Mark("f", handlers.Func(func(ctx context.Context, m *triggers.Message) ([]byte, error) {
		note(ctx)
		return m.Body, failure
	}))
	batch, two := Mark("g", handlers.BatchFunc(func(ctx context.Context, messages []*triggers.Message) ([]handlers.Result, error) {
		note(ctx)
		return []handlers.Result{{Output: messages[0].Body}}, nil
	}))
	for _, on := range []bool{false, true, false} {
		one.Turn(on)
		two.Turn(on)
		output, err := single.Handle(t.Context(), &triggers.Message{Body: []byte("x")})
		if string(output) != "x" || !errors.Is(err, failure) || set != on || on && label != "f" {
			t.Errorf("on %v: %q, %v, label %q, %v", on, output, err, label, set)
		}
		output, err = batch.Handle(t.Context(), &triggers.Message{Body: []byte("y")})
		if string(output) != "y" || err != nil || set != on || on && label != "g" {
			t.Errorf("on %v, a batch: %q, %v, label %q, %v", on, output, err, label, set)
		}
	}
}

// A panic is a failed attempt, with labels too.
func TestPanicWithLabels(t *testing.T) {
	own, s := Mark("f", handlers.Func(func(context.Context, *triggers.Message) ([]byte, error) { panic("oh") }))
	s.Turn(true)
	var failure *handlers.Failure
	if _, err := own.Handle(t.Context(), &triggers.Message{}); !errors.As(err, &failure) || failure.Summary != "panic: oh" {
		t.Error(err)
	}
}

type other struct{ handlers.Func }

func TestOtherHandlersHaveNoLabels(t *testing.T) {
	given := other{}
	if own, s := Mark("f", given); s != nil {
		t.Errorf("%T got labels", own)
	}
}
