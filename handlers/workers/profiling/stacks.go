package profiling

import (
	"encoding/binary"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

// Stacks are sampled stacks, each once, with the sums of its samples. The zero value is empty. It
// belongs to one goroutine, or is guarded by its owner.
type Stacks struct {
	// Lines are the lines of code that the stacks refer to by index.
	Lines []protocol.ProfileLine
	All   []protocol.SampledStack
	// Lost are the samples that were dropped, because there were too many stacks.
	Lost protocol.ProfileCounters

	lines map[protocol.ProfileLine]int
	known map[string]int // the index in All, by the lines
}

// Add adds the stacks of one worker, up to protocol.MaxStacks of all workers.
func (s *Stacks) Add(f *protocol.ProfiledFrame) {
	if s.known == nil {
		s.lines, s.known = make(map[protocol.ProfileLine]int), make(map[string]int)
	}
	add(&s.Lost, f.Lost)
	for _, stack := range f.Stacks {
		s.addStack(f.Lines, stack)
	}
}

func (s *Stacks) addStack(lines []protocol.ProfileLine, stack protocol.SampledStack) {
	var key []byte
	own := make([]int, 0, len(stack.Lines))
	for _, at := range stack.Lines {
		index, ok := s.indexOf(lines[at])
		if !ok {
			add(&s.Lost, stack.ProfileCounters)
			return
		}
		own = append(own, index)
		key = binary.AppendUvarint(key, uint64(index))
	}
	at, found := s.known[string(key)]
	switch {
	case found:
		add(&s.All[at].ProfileCounters, stack.ProfileCounters)
	case len(s.All) >= protocol.MaxStacks:
		add(&s.Lost, stack.ProfileCounters)
	default:
		s.known[string(key)] = len(s.All)
		s.All = append(s.All, protocol.SampledStack{Lines: own, ProfileCounters: stack.ProfileCounters})
	}
}

// indexOf returns the index of a line; ok is false if there are too many lines.
func (s *Stacks) indexOf(line protocol.ProfileLine) (index int, ok bool) {
	if index, ok = s.lines[line]; ok {
		return index, true
	}
	if len(s.Lines) >= protocol.MaxProfileLines {
		return 0, false
	}
	index = len(s.Lines)
	s.lines[line] = index
	s.Lines = append(s.Lines, line)
	return index, true
}

// Total returns the sum of all samples that were kept.
func (s *Stacks) Total() (sum protocol.ProfileCounters) {
	for _, stack := range s.All {
		add(&sum, stack.ProfileCounters)
	}
	return sum
}

func add(to *protocol.ProfileCounters, more protocol.ProfileCounters) {
	to.Samples += more.Samples
	to.Time += more.Time
}
