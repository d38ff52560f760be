package profiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/pprof/profile"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/profiling"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// unprofilableError is why a function cannot be profiled, and what to do instead.
type unprofilableError struct{ why string }

func (e *unprofilableError) Error() string { return e.why }

// profileWorkers profiles a function in the workers of its pool.
func profileWorkers(ctx context.Context, f *apps.Function, length time.Duration) (*api.Profile, error) {
	groups := workers.GroupsOf(f.Pool.Pool, f.Name)
	results, errs := make([]profiling.Result, len(groups)), make([]error, len(groups))
	var all sync.WaitGroup
	for i, group := range groups {
		all.Go(func() { results[i], errs[i] = group.Profile(ctx, f.Name, length) })
	}
	all.Wait()
	if err := errors.Join(errs...); errors.Is(err, profiling.ErrUnsupported) {
		return nil, &unprofilableError{fmt.Sprintf("%v; use a worker with the capability %s of docs/worker-protocol.md", errs[0], protocol.CanProfile)}
	} else if err != nil {
		return nil, err
	}
	sum := results[0]
	for _, more := range results[1:] {
		sum.Stacks.Add(&protocol.ProfiledFrame{Lines: more.Stacks.Lines, Stacks: more.Stacks.All, Lost: more.Stacks.Lost})
		sum.Workers += more.Workers
		sum.Notes = append(sum.Notes, more.Notes...)
	}
	return answerOf(&sum, length)
}

// answerOf returns the answer with the samples of workers.
func answerOf(r *profiling.Result, length time.Duration) (*api.Profile, error) {
	out := &api.Profile{Kind: api.ProfileWall, Workers: r.Workers, Samples: r.Stacks.Total().Samples, Notes: r.Notes}
	if lost := r.Stacks.Lost; lost.Samples > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d samples of %v are missing: there were more than %d different stacks", lost.Samples, lost.TotalTime().Round(time.Millisecond), protocol.MaxStacks))
	}
	return out, encode(out, convert(&r.Stacks, length))
}

// encode sets the samples of an answer, if there are any.
func encode(out *api.Profile, p *profile.Profile) error {
	if len(p.Sample) == 0 {
		return nil
	}
	var text bytes.Buffer
	if err := p.Write(&text); err != nil {
		return fmt.Errorf("writing the profile: %w", err)
	}
	out.Pprof = text.Bytes()
	return nil
}

// convert returns stacks in the format of pprof.
func convert(s *profiling.Stacks, length time.Duration) *profile.Profile {
	out := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: api.ProfileWall, Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: api.ProfileWall, Unit: "nanoseconds"}, Period: profiling.Period.Nanoseconds(),
		DefaultSampleType: api.ProfileWall, TimeNanos: time.Now().Add(-length).UnixNano(), DurationNanos: length.Nanoseconds(),
	}
	functions := make(map[protocol.ProfileLine]*profile.Function)
	for i, line := range s.Lines {
		key := line
		key.Line = 0
		f := functions[key]
		if f == nil {
			f = &profile.Function{ID: uint64(len(functions) + 1), Name: line.Function, SystemName: line.Function, Filename: line.File, StartLine: line.Start}
			functions[key] = f
			out.Function = append(out.Function, f)
		}
		out.Location = append(out.Location, &profile.Location{ID: uint64(i + 1), Line: []profile.Line{{Function: f, Line: line.Line}}})
	}
	for _, stack := range s.All {
		sample := &profile.Sample{Value: []int64{stack.Samples, stack.TotalTime().Nanoseconds()}}
		for _, at := range stack.Lines {
			sample.Location = append(sample.Location, out.Location[at])
		}
		out.Sample = append(out.Sample, sample)
	}
	return out
}
