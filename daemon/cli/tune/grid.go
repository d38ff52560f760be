package tune

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Baseline is the result of a first short measurement of a function, with one process and one call
// at a time.
type Baseline struct {
	Async bool
	// Threads reports whether the worker can have several threads.
	Threads bool
	Cores   int
	// Busy is the fraction of a core that one call at a time uses; 1 for a function that only
	// computes.
	Busy float64
	// Call is how long a call takes, StartUp how long a worker takes to load the code.
	Call, StartUp time.Duration
	// Memory is the memory of a worker, in bytes, and Free the memory for all of them; 0: unknown.
	Memory, Free uint64
}

// Requested has the numbers that the user requested; if a list is empty, the grid chooses.
type Requested struct{ Processes, Threads, Coroutines []int }

// Plan has the cells to run, in order, and how long each may take in a round, including its settling.
type Plan struct {
	Cells   []Settings
	Rounds  int
	Each    time.Duration
	Skipped []Skipped
}

// Runs returns the cells in the order in which they run, in all rounds. Every second round is in
// the opposite order, so that a slow change of the machine affects all cells alike.
func (p Plan) Runs() (out []Settings) {
	for round := range p.Rounds {
		cells := slices.Clone(p.Cells)
		if round%2 == 1 {
			slices.Reverse(cells)
		}
		out = append(out, cells...)
	}
	return out
}

const (
	// minCellTime is the shortest time for a cell, including its settling.
	minCellTime = time.Second
	// callsPerCell is how many calls, one after another, must fit into the time of a cell.
	callsPerCell = 4
	// mostRounds bounds the rounds. With three, noise of half a run does not decide.
	mostRounds = 3
	// overshoot is how far the grid extends past the point where the cores are full, as a factor.
	overshoot = 4
	// changeTime is the time from one cell to the next in the same processes.
	changeTime = 50 * time.Millisecond
	// maxMemoryShare is the fraction of the free memory that workers may use.
	maxMemoryShare = 0.8
)

// threadSteps and coroutineSteps are the values that a grid may try.
var (
	threadSteps    = []int{1, 4, 16, 64, 256}
	coroutineSteps = []int{1, 8, 64, 512, 4096}
)

// PlanGrid chooses the cells to run within the budget: the most informative first, then others while
// there is time, and then more rounds. In the first round the cells run from the smallest to the largest. Cells with the same processes
// follow each other, since starting processes takes time. Among those, cells with many threads
// come last, since their memory is not freed.
func PlanGrid(l Baseline, asked Requested, budget time.Duration) Plan {
	var p Plan
	axes := l.gridAxes(asked)
	type ranked struct {
		Settings
		rank int
	}
	var all []ranked
	for i, processes := range axes[0] {
		if l.Memory > 0 && l.Free > 0 && float64(processes)*float64(l.Memory) > maxMemoryShare*float64(l.Free) {
			p.Skipped = append(p.Skipped, Skipped{Settings{Processes: processes}, fmt.Sprintf("%d MiB of memory each do not fit", l.Memory>>20)})
			continue
		}
		for j, threads := range axes[1] {
			for k, coroutines := range axes[2] {
				all = append(all, ranked{Settings{processes, threads, coroutines}, i + j + k})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	need := max(minCellTime, callsPerCell*l.Call)
	var in []ranked
	for _, c := range all {
		more := append(slices.Clone(in), c)
		slices.SortFunc(more, func(a, b ranked) int { return compareSettings(a.Settings, b.Settings) })
		if time.Duration(len(more))*(need+changeTime)+startUpTime(more, func(r ranked) int { return r.Processes }, l.StartUp) > budget {
			p.Skipped = append(p.Skipped, Skipped{c.Settings, "no time for it"})
			continue
		}
		in = more
	}
	for _, c := range in {
		p.Cells = append(p.Cells, c.Settings)
	}
	if n := time.Duration(len(in)); n > 0 {
		starts := startUpTime(in, func(r ranked) int { return r.Processes }, l.StartUp)
		for rounds := time.Duration(1); rounds <= mostRounds; rounds++ {
			each := (budget-rounds*starts)/n/rounds - changeTime
			if rounds == 1 || each >= need {
				p.Rounds, p.Each = int(rounds), each
			}
		}
	}
	return p
}

// CellTime returns how long a grid of one cell takes.
func (l Baseline) CellTime() time.Duration {
	return max(minCellTime, callsPerCell*l.Call) + changeTime + l.StartUp
}

// startUpTime returns how long the starts of the workers take for cells in this order.
func startUpTime[T any](cells []T, processes func(T) int, startUp time.Duration) (all time.Duration) {
	last := 0
	for _, c := range cells {
		if n := processes(c); n != last {
			all, last = all+startUp, n
		}
	}
	return all
}

// gridAxes returns the values of each number, the most informative first. A number that makes no
// difference has the one value 0.
func (l Baseline) gridAxes(asked Requested) [3][]int {
	cores := max(l.Cores, 1)
	full := int(float64(cores) / min(max(l.Busy, 1e-4), 1)) // concurrent calls that fill the cores
	processes := []int{cores, 1, 2 * cores}
	if cores > 3 {
		processes = append(processes, cores/2)
	}
	if cores == 1 {
		processes = []int{1, 2, 4}
	}
	threads, coroutines := []int{0}, []int{0}
	switch {
	case l.Async:
		coroutines = endsFirst(stepsUpTo(coroutineSteps, max(overshoot*full, 64)))
	case l.Threads:
		threads = endsFirst(stepsUpTo(threadSteps, max(overshoot*full, 16)))
	}
	for _, own := range []struct {
		asked []int
		axis  *[]int
	}{{asked.Processes, &processes}, {asked.Threads, &threads}, {asked.Coroutines, &coroutines}} {
		if len(own.asked) > 0 {
			*own.axis = own.asked
		}
	}
	return [3][]int{processes, threads, coroutines}
}

// stepsUpTo returns the values up to the first that reaches a bound.
func stepsUpTo(all []int, bound int) []int {
	for i, n := range all {
		if n >= bound {
			return all[:i+1]
		}
	}
	return all
}

// endsFirst returns the ends of a row first, then the middle, and then the values between.
func endsFirst(row []int) []int {
	if len(row) < 3 {
		return row
	}
	out := []int{row[0], row[len(row)-1]}
	var halve func(low, high int)
	pending := [][2]int{{0, len(row) - 1}}
	halve = func(low, high int) {
		if high-low < 2 {
			return
		}
		middle := (low + high) / 2
		out = append(out, row[middle])
		pending = append(pending, [2]int{low, middle}, [2]int{middle, high})
	}
	for len(pending) > 0 {
		next := pending[0]
		pending = pending[1:]
		halve(next[0], next[1])
	}
	return out
}
