// Package labels marks the goroutines that run a Go function while a CPU profile of it runs: only their
// samples count. At other times a call costs one atomic load more.
package labels

import (
	"context"
	"runtime/pprof"
	"sync/atomic"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Key is the key of the label, whose value is the name of the function.
const Key = "drover_function"

// Switch turns the labels of one function on and off. Any goroutine may use it.
type Switch struct {
	on     atomic.Bool
	labels pprof.LabelSet
}

// Turn turns the labels on or off, for calls that begin from now on.
func (s *Switch) Turn(on bool) { s.on.Store(on) }

// IsOn reports whether the labels are on.
func (s *Switch) IsOn() bool { return s.on.Load() }

// Mark returns a handler that runs a Go function with labels while its switch is on. The switch is nil,
// and the handler unchanged, if it is neither a Func nor a BatchFunc: it may run its calls on other goroutines.
func Mark(function string, own handlers.Handler) (handlers.Handler, *Switch) {
	s := &Switch{labels: pprof.Labels(Key, function)}
	switch call := own.(type) {
	case handlers.Func:
		return handlers.Func(func(ctx context.Context, m *triggers.Message) (output []byte, err error) {
			if !s.IsOn() {
				return call(ctx, m)
			}
			pprof.Do(ctx, s.labels, func(ctx context.Context) { output, err = call(ctx, m) })
			return output, err
		}), s
	case handlers.BatchFunc:
		return handlers.BatchFunc(func(ctx context.Context, messages []*triggers.Message) (results []handlers.Result, err error) {
			if !s.IsOn() {
				return call(ctx, messages)
			}
			pprof.Do(ctx, s.labels, func(ctx context.Context) { results, err = call(ctx, messages) })
			return results, err
		}), s
	}
	return own, nil
}
