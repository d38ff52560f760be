// Package workloads has the command that compares what drover finds for a function with the best of a
// grid of settings.
package workloads

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/bench/rig"
)

type Command struct {
	Only  []string      `help:"Only these workloads." placeholder:"NAME"`
	For   time.Duration `default:"60s" help:"For how long auto runs each workload, and each half of one that flips."`
	Cell  time.Duration `default:"4s" help:"For how long each cell of the grid is measured, after a second of warming up."`
	Grid  string        `help:"Instead of each workload's own grid: processes, threads and coroutines, such as 1,2x1,8,64x512." placeholder:"P,PxT,TxC,C"`
	JSON  string        `help:"Write all that was measured to this file." placeholder:"FILE"`
	Plots string        `help:"Draw how auto converges, an SVG for each workload, into this directory." placeholder:"DIR"`
	List  bool          `help:"Print the workloads and their grids, and measure nothing."`

	Coroutines10k bool `name:"coroutines10k" help:"Instead of the workloads: one worker with 10,000 calls in flight that each await a second."`
}

// workload is a load of a known kind.
type workload struct {
	Name      string   `json:"name"`
	What      string   `json:"what"`
	Functions []string `json:"functions"`
	// modes are the kinds of its function, one after the other; most have one kind.
	modes string
	// numpy reports that it needs NumPy.
	numpy bool
	// azure reports that it is compared with the defaults of Azure Functions.
	azure bool
	// rate is an upper bound of the messages per second of any setting, for the first estimate of
	// the number of messages.
	rate int
	grid grid
}

// workloads are the workloads of the figures. The grids extend beyond the best cell on machines with a
// few cores: if it were at the edge of a grid, a cell beyond it could be better.
func workloads(cores int) []workload {
	processes := slices.Compact(slices.Sorted(slices.Values([]int{1, cores, 2 * cores})))
	one := []int{1}
	return []workload{
		{Name: "noop", What: "a function that does nothing", Functions: []string{"noop"}, rate: 300_000,
			grid: grid{processes, []int{1, 2, 4}, one}},
		{Name: "cpu", What: "20 ms of Python", Functions: []string{"cpu"}, azure: true, rate: 100 * cores,
			grid: grid{processes, []int{1, 2, 4}, one}},
		{Name: "releases-gil", What: "20 ms of hashlib, which releases the GIL", Functions: []string{"releases_gil"}, rate: 100 * cores,
			grid: grid{processes, []int{1, 2, 4}, one}},
		{Name: "matmul", What: "a matrix product of NumPy, which computes in threads of its own", Functions: []string{"matmul"}, numpy: true, rate: 3000 * cores,
			grid: grid{processes, []int{1, 2, 4}, one}},
		{Name: "blocking", What: "100 ms of time.sleep", Functions: []string{"blocking"}, azure: true, rate: 40_000,
			grid: grid{processes, []int{8, 64, 256, 512, 1024}, one}},
		{Name: "async", What: "100 ms of asyncio.sleep", Functions: []string{"coroutine"}, rate: 60_000,
			grid: grid{processes, one, []int{64, 512, 1024, 2048, 4096}}},
		{Name: "mixed", What: "30 ms of Python and 70 ms of time.sleep", Functions: []string{"mixed"}, rate: 70 * cores,
			grid: grid{processes, []int{1, 2, 3, 4, 8}, one}},
		{Name: "guide", What: "the guide's example: ten blocking requests through run_in_executor, each of 50 ms", Functions: []string{"guide"}, rate: 1000,
			grid: grid{processes, one, []int{8, 32, 128, 512}}},
		{Name: "opposites", What: "two functions of one pool: 20 ms of Python, and 100 ms of time.sleep", Functions: []string{"cpu", "blocking"}, rate: 20_000,
			grid: grid{processes, []int{1, 4, 16, 64, 256}, one}},
		{Name: "never-awaits", What: "an async function that never awaits: 20 ms of Python", Functions: []string{"never_awaits"}, rate: 100 * cores,
			grid: grid{processes, one, []int{1, 2, 8, 64}}},
		{Name: "flip", What: "20 ms of Python, then 100 ms of time.sleep, then Python again", Functions: []string{"flips"}, modes: "cwc", rate: 40_000,
			grid: grid{processes, []int{1, 64, 256, 512}, one}},
	}
}

// Run measures, for each workload, each cell of a grid, and then auto.
func (c *Command) Run(ctx context.Context) (err error) {
	if c.For < 10*time.Second || c.Cell < time.Second {
		return errors.New("--for must be at least 10s, --cell at least 1s")
	}
	all := workloads(runtime.NumCPU())
	for i := range all {
		if all[i].modes == "" {
			all[i].modes = "-"
		}
		if c.Grid == "" {
			continue
		}
		if all[i].grid, err = parseGrid(c.Grid); err != nil {
			return err
		}
	}
	if len(c.Only) > 0 {
		for _, name := range c.Only {
			if !slices.ContainsFunc(all, func(w workload) bool { return w.Name == name }) {
				return fmt.Errorf("--only %s: there is no such workload; --list prints them", name)
			}
		}
		all = slices.DeleteFunc(all, func(w workload) bool { return !slices.Contains(c.Only, w.Name) })
	}
	if c.List {
		for _, w := range all {
			fmt.Printf("%-13s %s\n%13s %v: %d cells\n", w.Name, w.What, "", w.grid, len(w.grid.cells()))
		}
		return nil
	}
	b, err := newBed(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if c.Coroutines10k {
		return b.coroutines10k(ctx, c.For)
	}
	var reports []*report
	for _, w := range all {
		if w.numpy && !b.numpy {
			fmt.Fprintf(os.Stderr, "%s is left out: the Python that runs the functions has no NumPy; pip install numpy\n", w.Name)
			continue
		}
		r, err := c.measure(ctx, b, w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		reports = append(reports, r)
		if err := c.keep(r, reports); err != nil {
			return err
		}
	}
	return printReports(os.Stdout, reports)
}

// keep writes the results so far, since a run takes long and may be interrupted.
func (c *Command) keep(r *report, all []*report) error {
	if c.JSON != "" {
		text, err := json.MarshalIndent(all, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.JSON, text, 0o600); err != nil {
			return err
		}
	}
	if c.Plots == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(c.Plots, r.Name+".svg"), []byte(r.plot()), 0o644)
}

// measure is one workload's part.
func (c *Command) measure(ctx context.Context, b *bed, w workload) (r *report, err error) {
	r = &report{workload: w, For: c.For, Cores: runtime.NumCPU()}
	for _, mode := range w.modes {
		if l := r.level(mode); l != nil {
			r.Stages = append(r.Stages, *l)
			continue
		}
		l, err := c.best(ctx, b, w, mode)
		if err != nil {
			return nil, err
		}
		r.Stages = append(r.Stages, *l)
	}
	rate := 0.0
	for _, l := range r.Stages {
		rate = max(rate, l.Best.Rate)
	}
	if r.Auto, err = b.run(ctx, w, nil, w.modes, c.For, 1.3*rate); err != nil {
		return nil, fmt.Errorf("auto: %w", err)
	}
	// What the machine gives changes; the best cell stands on both sides of auto.
	for i := range r.Stages {
		l := &r.Stages[i]
		if first := slices.IndexFunc(r.Stages, func(s stage) bool { return s.Mode == l.Mode }); first < i {
			l.Best = r.Stages[first].Best
			continue
		}
		if err := c.cell(ctx, b, w, rune(l.Mode[0]), &l.Best, 2*c.Cell); err != nil {
			return nil, err
		}
		l.Best.Rate = rig.Median(l.Best.Runs)
	}
	if w.azure {
		r.Azure = &cell{Settings: settings{Processes: 1, Threads: min(32, runtime.NumCPU()+4), Coroutines: 1}}
		if err := c.cell(ctx, b, w, rune(w.modes[0]), r.Azure, 2*c.Cell); err != nil {
			return nil, fmt.Errorf("the Azure defaults: %w", err)
		}
	}
	r.judge()
	fmt.Fprintln(os.Stderr, r.line())
	return r, nil
}

// again is how many of the best cells are measured a second time. The best of many single
// measurements is partly luck.
const again = 3

// best measures the grid, and returns the best cell of it.
func (c *Command) best(ctx context.Context, b *bed, w workload, mode rune) (*stage, error) {
	l := &stage{Mode: string(mode)}
	for _, s := range w.grid.cells() {
		one := cell{Settings: s}
		if err := c.cell(ctx, b, w, mode, &one, c.Cell); err != nil {
			return nil, err
		}
		l.Cells = append(l.Cells, one)
	}
	better := func(a, b cell) int { return -compare(a.Rate, b.Rate) }
	slices.SortStableFunc(l.Cells, better)
	for i := range l.Cells[:min(again, len(l.Cells))] {
		if err := c.cell(ctx, b, w, mode, &l.Cells[i], 2*c.Cell); err != nil {
			return nil, err
		}
		l.Cells[i].Rate = l.Cells[i].Runs[1]
	}
	slices.SortStableFunc(l.Cells[:min(again, len(l.Cells))], better)
	l.Best = l.Cells[0]
	l.Best.Runs = slices.Clone(l.Best.Runs[len(l.Best.Runs)-1:])
	return l, nil
}

// cell measures one with explicit settings.
func (c *Command) cell(ctx context.Context, b *bed, w workload, mode rune, one *cell, length time.Duration) error {
	run, err := b.run(ctx, w, &one.Settings, string(mode), length, float64(w.rate))
	if err != nil {
		return fmt.Errorf("%v: %w", one.Settings, err)
	}
	one.Rate = run.rate(0, run.end())
	one.Runs = append(one.Runs, one.Rate)
	fmt.Fprintf(os.Stderr, "%s %s %v: %.1f/s\n", w.Name, strings.Trim(string(mode), "-"), one.Settings, one.Rate)
	return nil
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
