// Package tune has the parts of drover tune that start nothing: it chooses the settings of a grid,
// finds the best of the measured ones, and draws them. The command calls it from one goroutine.
// Package measure below it does the measuring.
package tune

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Settings are the settings of one cell of the grid. 0 keeps the configured value: the number
// makes no difference to the function.
type Settings struct {
	Processes  int `json:"processes"`
	Threads    int `json:"threads,omitempty"`
	Coroutines int `json:"coroutines,omitempty"`
}

// String returns the settings as text.
func (s Settings) String() string {
	parts := []string{withNoun(s.Processes, "process", "processes")}
	if s.Threads > 0 {
		parts = append(parts, withNoun(s.Threads, "thread", "threads"))
	}
	if s.Coroutines > 0 {
		parts = append(parts, withNoun(s.Coroutines, "coroutine", "coroutines"))
	}
	return strings.Join(parts, " × ")
}

func withNoun(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Cell has the measurements with some settings. Times are in seconds.
type Cell struct {
	Settings
	Seconds float64 `json:"seconds"` // how long it was measured
	Calls   int64   `json:"calls"`   // calls that ended
	Failed  int64   `json:"failed"`  // of those calls
	// Throughput is the number of calls that succeeded, per second.
	Throughput float64 `json:"throughput"`
	// Rates are the throughputs in the parts of the measurement: some in each round.
	Rates []float64 `json:"rates,omitempty"`
	P50   float64   `json:"p50_seconds"`
	P99   float64   `json:"p99_seconds"`
	// CPU is how many cores the workers used, Memory how much memory, in bytes; 0 if the system
	// does not report it.
	CPU    float64 `json:"cpu_cores"`
	Memory uint64  `json:"memory_bytes"`
	// Unsettled reports that starts and ends of calls were not in balance, as when calls pile up
	// within the worker: its latencies would keep growing.
	Unsettled bool `json:"unsettled,omitempty"`
	// Problem is the reason why nothing was measured; otherwise empty.
	Problem string `json:"problem,omitempty"`
}

// FewCalls is how many calls a cell needs for a meaningful p99.
const FewCalls = 20

// failureRate returns the fraction of a cell's calls that failed.
func (c *Cell) failureRate() float64 { return float64(c.Failed) / float64(max(c.Calls, 1)) }

// Skipped are settings that were not tried, and the reason.
type Skipped struct {
	Settings
	Why string `json:"why"`
}

// Report has all results of a run.
type Report struct {
	Function string    `json:"function"`
	Handler  string    `json:"handler"`
	File     string    `json:"configuration"`
	Messages string    `json:"messages"` // their source and their number
	Began    time.Time `json:"began"`
	Took     float64   `json:"took_seconds"`
	Cores    int       `json:"cores"`
	Async    bool      `json:"async"`
	Stopped  bool      `json:"stopped,omitempty"` // before all cells were measured
	// Others is how many cores other programs used during the run; 0 if unknown.
	Others float64 `json:"others_cores,omitempty"`

	Cells   []Cell    `json:"cells"`
	Skipped []Skipped `json:"skipped,omitempty"`
	Notes   []string  `json:"notes,omitempty"`

	// Best is the cell with the highest throughput. Cheapest is the cheapest cell within Tolerance
	// of it. Both are nil if no cell has any throughput.
	Best     *Cell `json:"best"`
	Cheapest *Cell `json:"cheapest"`
	// Auto is what auto chose under the same load, within AutoFor seconds and without earlier
	// results. It is nil if auto was not tried; NoAuto is the reason then.
	Auto    *Cell   `json:"auto,omitempty"`
	AutoFor float64 `json:"auto_seconds,omitempty"`
	NoAuto  string  `json:"no_auto,omitempty"`
}

// Tolerance is the fraction of the best throughput that a cheaper cell may lack.
const Tolerance = 0.05

const (
	// extraFailures is how much more of its calls than the cell with the fewest failures a cell may
	// fail to be chosen, as a fraction.
	extraFailures = 0.01
	// similarFactor is the factor by which memory and CPU may differ and count as equal:
	// measurements vary a little.
	similarFactor = 1.1
)

// ChooseBest finds the best cell and the cheapest. It excludes cells in which more messages fail
// than in others: failing may be what makes them fast.
func (r *Report) ChooseBest() {
	r.Best, r.Cheapest = nil, nil
	var fit []*Cell
	least := 1.0
	for i := range r.Cells {
		if c := &r.Cells[i]; c.Problem == "" && c.Throughput > 0 {
			fit = append(fit, c)
			least = min(least, c.failureRate())
		}
	}
	fit = slices.DeleteFunc(fit, func(c *Cell) bool { return c.failureRate() > least+extraFailures })
	if len(fit) == 0 {
		return
	}
	r.Best = slices.MaxFunc(fit, func(a, b *Cell) int {
		return cmp.Or(cmp.Compare(a.Throughput, b.Throughput), compareCost(b, a))
	})
	enough := slices.DeleteFunc(fit, func(c *Cell) bool { return c.Throughput < (1-Tolerance)*r.Best.Throughput })
	r.Cheapest = findCheapest(enough)
}

// findCheapest returns the cheapest of cells: it selects those with the fewest processes, of them
// those with the least memory, of them those with the least CPU, and returns the one with the
// smallest settings.
func findCheapest(cells []*Cell) *Cell {
	narrow := func(value func(c *Cell) float64, within float64) {
		least := value(slices.MinFunc(cells, func(a, b *Cell) int { return cmp.Compare(value(a), value(b)) }))
		cells = slices.DeleteFunc(cells, func(c *Cell) bool { return value(c) > least*within })
	}
	narrow(func(c *Cell) float64 { return float64(c.Processes) }, 1)
	narrow(func(c *Cell) float64 { return float64(c.Memory) }, similarFactor)
	narrow(func(c *Cell) float64 { return c.CPU }, similarFactor)
	return slices.MinFunc(cells, compareCost)
}

func compareCost(a, b *Cell) int { return compareSettings(a.Settings, b.Settings) }

func compareSettings(a, b Settings) int {
	return cmp.Or(cmp.Compare(a.Processes, b.Processes), cmp.Compare(a.Threads, b.Threads), cmp.Compare(a.Coroutines, b.Coroutines))
}

// SortedCells returns the cells ordered by their settings, not in the order of their runs.
func (r *Report) SortedCells() []Cell {
	out := slices.Clone(r.Cells)
	slices.SortStableFunc(out, func(a, b Cell) int { return compareCost(&a, &b) })
	return out
}

// maxSkippedShown is how many skipped settings with the same reason are named.
const maxSkippedShown = 3

// SkippedLines returns which settings were not tried, and why.
func (r *Report) SkippedLines() (out []string) {
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
		text := strings.Join(names[:min(len(names), maxSkippedShown)], "; ")
		if more := len(names) - maxSkippedShown; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		out = append(out, text+": "+why)
	}
	return out
}

// AdviceLines returns the conclusions from the numbers, as sentences.
func (r *Report) AdviceLines() (out []string) {
	addLine := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if r.Best == nil {
		addLine("No cell was measured completely, so there is no advice: increase --for.")
		return out
	}
	addLine("Best: %v, %s calls/s.", r.Best.Settings, FormatNumber(r.Best.Throughput))
	if r.Cheapest.Settings != r.Best.Settings {
		addLine("Cheapest within %.0f %% of it: %v, %s calls/s.", Tolerance*100, r.Cheapest.Settings, FormatNumber(r.Cheapest.Throughput))
	} else {
		addLine("It is also the cheapest: nothing cheaper comes within %.0f %% of it.", Tolerance*100)
	}
	if a := r.Auto; a != nil {
		addLine("Auto, in %.0f s and without earlier measurements, chose %v: %s calls/s, %.0f %% of the best.", r.AutoFor, a.Settings, FormatNumber(a.Throughput), 100*a.Throughput/r.Best.Throughput)
	} else if r.NoAuto != "" {
		addLine("Auto was not compared: %s.", r.NoAuto)
	}
	if n := r.countAsGood(); n > 0 {
		addLine("Their confidence intervals overlap: %s may be as good as the best. A longer --for separates them.", withNoun(n, "other cell", "other cells"))
	}
	if why := r.WhyNotKept(); why != "" {
		addLine("These numbers are no basis for a decision: %s. Measure again when the machine is quiet.", why)
	}
	for _, what := range r.limitsReached() {
		addLine("The best is at the edge of the grid: more %s may be better.", what)
	}
	return out
}

// limitsReached returns the numbers for which the best cell has the largest value that was tried,
// although smaller values were tried and were slower.
func (r *Report) limitsReached() (out []string) {
	for _, d := range dimensions {
		most, less := 0, 0.0
		for i := range r.Cells {
			if c := &r.Cells[i]; c.Problem == "" {
				most = max(most, d.value(c.Settings))
			}
		}
		if d.value(r.Best.Settings) < most {
			continue
		}
		for i := range r.Cells {
			if c := &r.Cells[i]; c.Problem == "" && d.value(c.Settings) < most {
				less = max(less, c.Throughput)
			}
		}
		if less > 0 && less < (1-Tolerance)*r.Best.Throughput {
			out = append(out, d.name)
		}
	}
	return out
}

// dimension is one of the three numbers.
type dimension struct {
	name  string
	value func(Settings) int
}

var dimensions = []dimension{
	{"processes", func(s Settings) int { return s.Processes }},
	{"threads", func(s Settings) int { return s.Threads }},
	{"coroutines", func(s Settings) int { return s.Coroutines }},
}
