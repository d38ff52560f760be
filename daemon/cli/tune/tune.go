// Package tune has the parts of drover tune that start nothing: it chooses the settings of a
// grid, the best of those that were measured, and draws them. The command calls these from one
// goroutine. Package measure below it measures.
package tune

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Settings are those of one cell of the grid. 0 is what the configuration has: the number
// makes no difference to the function.
type Settings struct {
	Processes  int `json:"processes"`
	Threads    int `json:"threads,omitempty"`
	Coroutines int `json:"coroutines,omitempty"`
}

// String is the settings for people.
func (s Settings) String() string {
	parts := []string{count(s.Processes, "process", "processes")}
	if s.Threads > 0 {
		parts = append(parts, count(s.Threads, "thread", "threads"))
	}
	if s.Coroutines > 0 {
		parts = append(parts, count(s.Coroutines, "coroutine", "coroutines"))
	}
	return strings.Join(parts, " × ")
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Cell is what was measured with some settings. Times are in seconds.
type Cell struct {
	Settings
	Seconds float64 `json:"seconds"` // for which it was measured
	Calls   int64   `json:"calls"`   // that ended
	Failed  int64   `json:"failed"`  // of those
	// Throughput counts the calls that ended well, in each second.
	Throughput float64 `json:"throughput"`
	P50        float64 `json:"p50_seconds"`
	P99        float64 `json:"p99_seconds"`
	// CPU is how many cores the workers used, Memory what they had, in bytes; 0 where this
	// system does not tell.
	CPU    float64 `json:"cpu_cores"`
	Memory uint64  `json:"memory_bytes"`
	// Unsettled says that what began and what ended were not in balance, as where calls pile up
	// within the worker: its latencies would grow on.
	Unsettled bool `json:"unsettled,omitempty"`
	// Problem says why there is nothing measured; else it is empty.
	Problem string `json:"problem,omitempty"`
}

// FewCalls is how many calls a cell must have for its p99 to say something.
const FewCalls = 20

// failing is the part of a cell's calls that failed.
func (c *Cell) failing() float64 { return float64(c.Failed) / float64(max(c.Calls, 1)) }

// Skipped are settings that were not tried.
type Skipped struct {
	Settings
	Why string `json:"why"`
}

// Report is all that a run has found.
type Report struct {
	Function string    `json:"function"`
	Handler  string    `json:"handler"`
	File     string    `json:"configuration"`
	Messages string    `json:"messages"` // where they are from, and how many
	Began    time.Time `json:"began"`
	Took     float64   `json:"took_seconds"`
	Cores    int       `json:"cores"`
	Async    bool      `json:"async"`
	Stopped  bool      `json:"stopped,omitempty"` // before all cells were measured

	Cells   []Cell    `json:"cells"`
	Skipped []Skipped `json:"skipped,omitempty"`
	Notes   []string  `json:"notes,omitempty"`

	// Best is the cell of the highest throughput, and Cheapest the least that comes within
	// Close of it; nil where no cell has any.
	Best     *Cell `json:"best"`
	Cheapest *Cell `json:"cheapest"`
	// Auto is what auto chose under the same load, within AutoFor seconds and from nothing; nil
	// where that was not tried, for which NoAuto is the reason.
	Auto    *Cell   `json:"auto,omitempty"`
	AutoFor float64 `json:"auto_seconds,omitempty"`
	NoAuto  string  `json:"no_auto,omitempty"`
}

// Close is how much of the best throughput a cheaper cell may lack.
const Close = 0.05

const (
	// moreFailing is by how much more of its calls than elsewhere a cell may fail to be
	// chosen.
	moreFailing = 0.01
	// alike is by how much memory and CPU may differ and count as the same: they are
	// measured, and differ a little from time to time.
	alike = 1.1
)

// Choose finds the best cell and the cheapest. One in which more messages fail than in
// others is neither: it may be fast for that.
func (r *Report) Choose() {
	r.Best, r.Cheapest = nil, nil
	var fit []*Cell
	least := 1.0
	for i := range r.Cells {
		if c := &r.Cells[i]; c.Problem == "" && c.Throughput > 0 {
			fit = append(fit, c)
			least = min(least, c.failing())
		}
	}
	fit = slices.DeleteFunc(fit, func(c *Cell) bool { return c.failing() > least+moreFailing })
	if len(fit) == 0 {
		return
	}
	r.Best = slices.MaxFunc(fit, func(a, b *Cell) int {
		return cmp.Or(cmp.Compare(a.Throughput, b.Throughput), cheaper(b, a))
	})
	enough := slices.DeleteFunc(fit, func(c *Cell) bool { return c.Throughput < (1-Close)*r.Best.Throughput })
	r.Cheapest = cheapest(enough)
}

// cheapest narrows the cells down: by processes, then by memory and CPU, and then by what is
// in flight.
func cheapest(cells []*Cell) *Cell {
	narrow := func(value func(c *Cell) float64, within float64) {
		least := value(slices.MinFunc(cells, func(a, b *Cell) int { return cmp.Compare(value(a), value(b)) }))
		cells = slices.DeleteFunc(cells, func(c *Cell) bool { return value(c) > least*within })
	}
	narrow(func(c *Cell) float64 { return float64(c.Processes) }, 1)
	narrow(func(c *Cell) float64 { return float64(c.Memory) }, alike)
	narrow(func(c *Cell) float64 { return c.CPU }, alike)
	return slices.MinFunc(cells, cheaper)
}

func cheaper(a, b *Cell) int { return smaller(a.Settings, b.Settings) }

func smaller(a, b Settings) int {
	return cmp.Or(cmp.Compare(a.Processes, b.Processes), cmp.Compare(a.Threads, b.Threads), cmp.Compare(a.Coroutines, b.Coroutines))
}

// InOrder are the cells by their settings, rather than in the order in which they were run.
func (r *Report) InOrder() []Cell {
	out := slices.Clone(r.Cells)
	slices.SortStableFunc(out, func(a, b Cell) int { return cheaper(&a, &b) })
	return out
}

// skippedAtOnce is how many settings are named that were left out for one reason.
const skippedAtOnce = 3

// LeftOut says which settings were not tried, and why.
func (r *Report) LeftOut() (out []string) {
	named := make(map[string][]string)
	var reasons []string
	for _, s := range r.Skipped {
		if named[s.Why] == nil {
			reasons = append(reasons, s.Why)
		}
		named[s.Why] = append(named[s.Why], s.String())
	}
	for _, why := range reasons {
		names := named[why]
		text := strings.Join(names[:min(len(names), skippedAtOnce)], "; ")
		if more := len(names) - skippedAtOnce; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		out = append(out, text+": "+why)
	}
	return out
}

// Advice are the sentences that follow from the numbers.
func (r *Report) Advice() (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if r.Best == nil {
		say("No cell was measured to its end, so there is no advice: give more time with --for.")
		return out
	}
	say("Best: %v, %s calls/s.", r.Best.Settings, Number(r.Best.Throughput))
	if r.Cheapest.Settings != r.Best.Settings {
		say("Cheapest within %.0f %% of it: %v, %s calls/s.", Close*100, r.Cheapest.Settings, Number(r.Cheapest.Throughput))
	} else {
		say("It is also the cheapest: nothing with less comes within %.0f %% of it.", Close*100)
	}
	if a := r.Auto; a != nil {
		say("Auto, which had %.0f s and began with nothing, chose %v: %s calls/s, %.0f %% of the best.", r.AutoFor, a.Settings, Number(a.Throughput), 100*a.Throughput/r.Best.Throughput)
	} else if r.NoAuto != "" {
		say("Auto was not compared: %s.", r.NoAuto)
	}
	for _, what := range r.edges() {
		say("The best is at the end of the grid: more %s may give more.", what)
	}
	return out
}

// edges are the numbers of which the best has the most that was tried, though less was tried,
// too, and gave less.
func (r *Report) edges() (out []string) {
	for _, d := range dimensions {
		most, less := 0, 0.0
		for i := range r.Cells {
			if c := &r.Cells[i]; c.Problem == "" {
				most = max(most, d.of(c.Settings))
			}
		}
		if d.of(r.Best.Settings) < most {
			continue
		}
		for i := range r.Cells {
			if c := &r.Cells[i]; c.Problem == "" && d.of(c.Settings) < most {
				less = max(less, c.Throughput)
			}
		}
		if less > 0 && less < (1-Close)*r.Best.Throughput {
			out = append(out, d.name)
		}
	}
	return out
}

// dimension is one of the three numbers.
type dimension struct {
	name string
	of   func(Settings) int
}

var dimensions = []dimension{
	{"processes", func(s Settings) int { return s.Processes }},
	{"threads", func(s Settings) int { return s.Threads }},
	{"coroutines", func(s Settings) int { return s.Coroutines }},
}
