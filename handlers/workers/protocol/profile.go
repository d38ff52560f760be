package protocol

import "time"

// The bounds of a PROFILED. A worker drops the samples that exceed them, and reports how many.
const (
	// MaxStacks is the number of stacks.
	MaxStacks = 10_000
	// MaxStackFrames is the number of frames of a stack.
	MaxStackFrames = 128
	// MaxProfileLines is the number of lines of code that the stacks have.
	MaxProfileLines = 20_000
	// MaxProfileText is the length of a name of a function or a file, in characters.
	MaxProfileText = 500
)

// ProfileFrame starts or ends a profile: the worker samples the stacks of the calls of one function.
type ProfileFrame struct {
	Profile  int64  `json:"profile"`  // its number; the answer has the same
	Function uint16 `json:"function"` // the index in LOAD
	// Period is the time between two samples, in microseconds; 0 ends the profile.
	Period int64 `json:"period_us"`
}

// ProfiledFrame is the result of a profile. A worker sends one for each that was started: when the
// daemon ends it, or before the worker ends.
type ProfiledFrame struct {
	Profile int64 `json:"profile"`
	// Error is why nothing was sampled; empty if it was.
	Error  string          `json:"error,omitempty"`
	Lines  []ProfileLine   `json:"lines"`
	Stacks []SampledStack  `json:"stacks"`
	Lost   ProfileCounters `json:"dropped"` // the samples that exceed the bounds
}

// ProfileLine is a line of code, with the function that contains it.
type ProfileLine struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int64  `json:"line"`
	Start    int64  `json:"start"` // the first line of the function
}

// ProfileCounters are sums over samples.
type ProfileCounters struct {
	Samples int64 `json:"samples"`
	Time    int64 `json:"time_us"` // that the samples stand for
}

// TotalTime returns the time that the samples stand for.
func (c ProfileCounters) TotalTime() time.Duration { return time.Duration(c.Time) * time.Microsecond }

// SampledStack is a stack with the samples that found it.
type SampledStack struct {
	Lines []int `json:"stack"` // indices in the frame's Lines, the innermost first
	ProfileCounters
}

// check returns an error if a worker's result exceeds the bounds.
func (f *ProfiledFrame) check() error {
	switch {
	case len(f.Stacks) > MaxStacks:
		return protocolError("a %v of %d stacks, where %d are the most", Profiled, len(f.Stacks), MaxStacks)
	case len(f.Lines) > MaxProfileLines:
		return protocolError("a %v of %d lines, where %d are the most", Profiled, len(f.Lines), MaxProfileLines)
	}
	for _, s := range f.Stacks {
		if n := len(s.Lines); n == 0 || n > MaxStackFrames {
			return protocolError("a %v with a stack of %d frames, where there are 1 to %d", Profiled, n, MaxStackFrames)
		}
		for _, at := range s.Lines {
			if at < 0 || at >= len(f.Lines) {
				return protocolError("a %v with line %d of %d", Profiled, at, len(f.Lines))
			}
		}
		if !s.valid() {
			return protocolError("a %v with %d samples of %d µs", Profiled, s.Samples, s.Time)
		}
	}
	if !f.Lost.valid() {
		return protocolError("a %v that drops %d samples of %d µs", Profiled, f.Lost.Samples, f.Lost.Time)
	}
	return nil
}

// maxProfiledTime bounds the times in a PROFILED, in microseconds, so that sums of them do not overflow:
// ten years.
const maxProfiledTime = 10 * 365 * 86400 * 1_000_000

func (c ProfileCounters) valid() bool {
	return c.Samples >= 0 && c.Samples <= maxProfiledTime && c.Time >= 0 && c.Time <= maxProfiledTime
}
