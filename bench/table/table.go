// Package table is the command that measures what a message costs, and how many are handled, by
// work, by size, and by load.
package table

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/bench/load"
	"github.com/drover-run/drover/bench/proc"

	"github.com/drover-run/drover/bench/rig"
)

// setups are drover's settings, by the names that the command takes.
var setups = map[string]load.Drover{
	"python":       {Language: "python"},
	"python-sized": {Language: "python", Sized: true},
	"python-1":     {Language: "python", Inline: true},
	"node":         {Language: "node"},
	"node-1":       {Language: "node", Inline: true},
	"go":           {Language: "go"},
}

// Command is the command.
type Command struct {
	Setup  []string        `default:"python,go" help:"drover's settings: python (drover finds the numbers), python-sized (2 processes; 2 × 500 threads or 1,000 coroutines for work that waits), python-1 (one thread in one process), node, node-1 (one process), go."`
	Stream []string        `default:"work-queue" help:"Streams: work-queue (as drover creates them), limits."`
	Server []string        `default:"embedded" help:"NATS servers: embedded, external (a separate process)."`
	Work   []string        `default:"cpu,wait" help:"What functions do: cpu, wait (time.sleep), awaits (asyncio.sleep, or Go's time.Sleep)."`
	Time   []time.Duration `default:"0s,100us,1ms,10ms,100ms" help:"How long the work takes; 0s is a no-op."`
	Size   []int           `default:"128,10000,256000" help:"Bytes of a body."`
	Load   []int           `default:"0,50" help:"Messages that arrive each second; 0 is a full queue."`
	Rounds int             `default:"1" help:"Rounds; each measures each row once. The figures are medians."`
	Warm   time.Duration   `default:"2s" help:"Time before the window."`
	For    time.Duration   `default:"3s" help:"The window. With arrivals at a rate it is four times as long."`
	Memory bool            `help:"Measure the memory of 1,000 messages of 1 kB in flight instead."`
	List   bool            `help:"Print the rows, and measure nothing."`
}

// Help adds an example to the help.
func (c *Command) Help() string {
	return `One row takes about ten seconds:

  go run ./bench table --setup python --work cpu --time 1ms --size 128 --load 0

Columns: messages a second; their ratio to the ideal with all cores busy or 1,000
messages in flight at a time; for each message CPU time, system calls (by perf or strace) and
context switches, of the daemon with its embedded server and of its workers; latency from the
sender to the function.`
}

// row is one row of the table.
type row struct {
	name string
	of   load.Contender
	cell load.Cell
}

// Run prints the table.
func (c *Command) Run(ctx context.Context) error {
	if c.Rounds < 1 || c.For <= 0 || c.Warm < 0 {
		return errors.New("--rounds must be at least 1, --for more than 0s, --warm at least 0s")
	}
	contenders, err := c.contenders()
	if err != nil {
		return err
	}
	if c.Memory {
		return c.memory(ctx, contenders)
	}
	rows, err := c.rows(contenders)
	if err != nil {
		return err
	}
	if c.List {
		for _, r := range rows {
			fmt.Println(r.name + ": " + r.cell.String())
		}
		return nil
	}
	counter := proc.FindSyscallCounter(ctx)
	fmt.Println(load.Commit(ctx))
	fmt.Printf("%d rounds of %v after %v; %d cores, %s; system calls counted by %s\n\n",
		c.Rounds, c.For, c.Warm, runtime.NumCPU(), runtime.Version(), orNothing(counter.Tool))
	results := make([][]load.Result, len(rows))
	for round := range c.Rounds {
		for i, r := range rows {
			options := load.Options{Warm: c.Warm, Window: c.For, Syscalls: counter}
			if r.cell.Rate > 0 {
				options.Window *= 4
			}
			one, err := load.Measure(ctx, r.of, r.cell, options)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s, %s: %.0f/s\n", round+1, c.Rounds, r.name, r.cell, one.PerSecond)
			results[i] = append(results[i], one)
		}
	}
	return printTable(rows, results)
}

func orNothing(tool string) string {
	if tool == "" {
		return "nothing: install perf or strace, and run as root"
	}
	return tool
}

// contenders are the combinations of settings, with their names.
func (c *Command) contenders() (all []load.Contender, err error) {
	for _, name := range c.Setup {
		settings, known := setups[name]
		if !known {
			return nil, fmt.Errorf("--setup %s is unknown: use python, python-sized, python-1, node, node-1 or go", name)
		}
		for _, stream := range c.Stream {
			if stream != "work-queue" && stream != "limits" {
				return nil, fmt.Errorf("--stream %s is unknown: use work-queue or limits", stream)
			}
			for _, server := range c.Server {
				if server != "embedded" && server != "external" {
					return nil, fmt.Errorf("--server %s is unknown: use embedded or external", server)
				}
				settings.Limits, settings.External = stream == "limits", server == "external"
				full := name
				if len(c.Stream) > 1 || settings.Limits {
					full += " " + stream
				}
				if settings.External {
					full += " " + server
				}
				all = append(all, settings.Contender(full))
			}
		}
	}
	return all, nil
}

// rows returns the rows to measure. It omits more arrivals than the cores can handle, and a second
// no-op.
func (c *Command) rows(contenders []load.Contender) (all []row, err error) {
	for _, work := range c.Work {
		if !slices.Contains([]string{load.CPU, load.Wait, load.Awaits}, work) {
			return nil, fmt.Errorf("--work %s is unknown: use cpu, wait or awaits", work)
		}
		for _, lasts := range c.Time {
			for _, size := range c.Size {
				for _, rate := range c.Load {
					cell := load.Cell{Work: work, Time: lasts, Size: size, Rate: rate}
					if cell.Impossible() || lasts == 0 && work != c.Work[0] {
						continue
					}
					for _, of := range contenders {
						all = append(all, row{of.Name, of, cell})
					}
				}
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no row is left: --load needs more than these cores can do")
	}
	return all, nil
}

func printTable(rows []row, results [][]load.Result) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| setup\t| work, body, load\t| messages/s\t| ÷ ideal\t| CPU, µs: daemon + workers\t| system calls\t| context switches\t| p50, p99, ms\t|")
	fmt.Fprintln(w, "| ---\t| ---\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t|")
	for i, r := range rows {
		of := func(figure func(load.Result) float64) float64 { return medianOf(results[i], figure) }
		micros := func(figure func(load.Result) time.Duration) float64 {
			return of(func(r load.Result) float64 { return float64(figure(r).Nanoseconds()) / 1000 })
		}
		rate := of(func(r load.Result) float64 { return r.PerSecond })
		parts := func(daemon, workers, broker float64) string {
			text := number(daemon) + " + " + number(workers)
			if broker > 0 {
				text += " + " + number(broker) + " (server)"
			}
			return text
		}
		cpu := parts(micros(func(r load.Result) time.Duration { return r.DaemonCPU }), micros(func(r load.Result) time.Duration { return r.WorkerCPU }),
			micros(func(r load.Result) time.Duration { return r.BrokerCPU }))
		calls := parts(of(func(r load.Result) float64 { return r.DaemonCalls }), of(func(r load.Result) float64 { return r.WorkerCalls }),
			of(func(r load.Result) float64 { return r.BrokerCalls }))
		switches := parts(of(func(r load.Result) float64 { return r.DaemonSwitches }), of(func(r load.Result) float64 { return r.WorkerSwitches }),
			of(func(r load.Result) float64 { return r.BrokerSwitches }))
		latency, ratio := "", ""
		if r.cell.Rate > 0 {
			latency = fmt.Sprintf("%.2f, %.2f", micros(func(r load.Result) time.Duration { return r.P50 })/1000, micros(func(r load.Result) time.Duration { return r.P99 })/1000)
		}
		if ideal := r.cell.Ideal(); ideal > 0 {
			ratio = fmt.Sprintf("%.2f", rate/ideal)
		}
		fmt.Fprintf(w, "| %s\t| %s\t| %.0f\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n", r.name, r.cell, rate, ratio, cpu, calls, switches, latency)
	}
	return w.Flush()
}

// number has two digits that matter; a negative one was not measured.
func number(x float64) string {
	switch {
	case x < 0:
		return "–"
	case x >= 10:
		return fmt.Sprintf("%.0f", x)
	case x >= 1:
		return fmt.Sprintf("%.1f", x)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.2f", x), ".00")
}

func medianOf(all []load.Result, figure func(load.Result) float64) float64 {
	var values []float64
	for _, one := range all {
		values = append(values, figure(one))
	}
	return rig.Median(values)
}
