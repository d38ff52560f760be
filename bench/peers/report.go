package peers

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/bench/load"

	"github.com/drover-run/drover/bench/rig"
)

// printRow prints the results of a row, and where a peer is ahead. The ratio of two setups is the
// median of the rounds' own ratios.
func printRow(cell load.Cell, contenders []load.Contender, results map[string][]load.Result) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	var references []string
	for _, of := range contenders {
		if isOurs(of.Name) {
			references = append(references, of.Name)
		}
	}
	heads := []string{"setup", "messages/s", "÷ ideal", "CPU + broker, µs", "system calls", "switches"}
	rules := []string{"---", "---:", "---:", "---:", "---:", "---:"}
	if cell.Rate > 0 {
		heads, rules = append(heads, "p50, ms", "p99, ms"), append(rules, "---:", "---:")
	}
	for _, name := range references {
		heads, rules = append(heads, name+" ÷"), append(rules, "---:")
	}
	printLine(w, heads)
	printLine(w, rules)
	speed := rateOf
	if cell.Rate > 0 {
		speed = func(r load.Result) float64 { return 1 / r.P50.Seconds() }
	}
	for _, of := range contenders {
		mine := results[of.Name]
		ratio := ""
		if ideal := cell.Ideal(); ideal > 0 && !cell.Waits() { // of those that wait, each has its own number in flight
			ratio = fmt.Sprintf("%.2f", medianOf(mine, rateOf)/ideal)
		}
		calls := medianOf(mine, func(r load.Result) float64 { return r.DaemonCalls + r.WorkerCalls })
		counted := "–"
		if calls >= 0 {
			counted = fmt.Sprintf("%.2f", calls)
		}
		cells := []string{
			of.Name, rateText(mine), ratio, cpuText(mine), counted,
			fmt.Sprintf("%.1f", medianOf(mine, func(r load.Result) float64 { return r.DaemonSwitches + r.WorkerSwitches })),
		}
		if cell.Rate > 0 {
			cells = append(cells, fmt.Sprintf("%.2f", medianOf(mine, p50Of)), fmt.Sprintf("%.2f", medianOf(mine, p99Of)))
		}
		for _, name := range references {
			cells = append(cells, fmt.Sprintf("%.2f", ratioOf(results[name], mine, speed)))
		}
		printLine(w, cells)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	lines := aheadOf(cell, contenders, results)
	if len(lines) == 0 {
		lines = []string{"No peer is ahead."}
	}
	fmt.Println("\n" + strings.Join(lines, "\n"))
	return nil
}

func printLine(w *tabwriter.Writer, cells []string) {
	fmt.Fprintln(w, "| "+strings.Join(cells, "\t| ")+"\t|")
}

func isOurs(name string) bool { return strings.HasPrefix(name, "drover") }

func rateOf(r load.Result) float64 { return r.PerSecond }

func p50Of(r load.Result) float64 { return float64(r.P50) / float64(time.Millisecond) }

func p99Of(r load.Result) float64 { return float64(r.P99) / float64(time.Millisecond) }

func costOf(r load.Result) float64 { return float64(r.CPU()+r.BrokerCPU) / float64(time.Microsecond) }

func medianOf(results []load.Result, figure func(load.Result) float64) float64 {
	var values []float64
	for _, r := range results {
		values = append(values, figure(r))
	}
	return rig.Median(values)
}

// ratioOf is the median of the rounds' own ratios.
func ratioOf(a, b []load.Result, figure func(load.Result) float64) float64 {
	var values []float64
	for i := range min(len(a), len(b)) {
		values = append(values, figure(a[i])/figure(b[i]))
	}
	return rig.Median(values)
}

// rateText is the median, and the lowest and the highest of several rounds.
func rateText(results []load.Result) string {
	compare := func(a, b load.Result) int { return cmp.Compare(a.PerSecond, b.PerSecond) }
	text := fmt.Sprintf("%.0f", medianOf(results, rateOf))
	if len(results) > 1 {
		text += fmt.Sprintf(" (%.0f to %.0f)", slices.MinFunc(results, compare).PerSecond, slices.MaxFunc(results, compare).PerSecond)
	}
	return text
}

func cpuText(results []load.Result) string {
	text := fmt.Sprintf("%.1f", medianOf(results, func(r load.Result) float64 { return float64(r.CPU()) / float64(time.Microsecond) }))
	if broker := medianOf(results, func(r load.Result) float64 { return float64(r.BrokerCPU) / float64(time.Microsecond) }); broker > 0 {
		text += fmt.Sprintf(" + %.1f", broker)
	}
	return text
}

// compared is a figure in which setups are compared.
type compared struct {
	name   string
	figure func(load.Result) float64
	isMore bool // more is better
}

// aheadOf names the peers that are ahead of all of drover's settings of their language.
func aheadOf(cell load.Cell, contenders []load.Contender, results map[string][]load.Result) (lines []string) {
	figures := []compared{{"messages/s", rateOf, true}, {"CPU with broker", costOf, false}}
	if cell.Rate > 0 {
		figures = []compared{{"p50", p50Of, false}, {"p99", p99Of, false}, {"CPU with broker", costOf, false}}
	}
	for _, of := range contenders {
		if isOurs(of.Name) {
			continue
		}
		for _, f := range figures {
			var ratios []float64
			for _, name := range rivalsOf(of.Name, contenders) {
				ratios = append(ratios, ratioOf(results[name], results[of.Name], f.figure))
			}
			switch {
			case len(ratios) == 0:
			case f.isMore && slices.Max(ratios) < 1:
				lines = append(lines, fmt.Sprintf("%s is ahead in %s: the best of drover has %.2f of it", of.Name, f.name, slices.Max(ratios)))
			case !f.isMore && slices.Min(ratios) > 1:
				lines = append(lines, fmt.Sprintf("%s is ahead in %s: the best of drover needs %.2f times as much", of.Name, f.name, slices.Min(ratios)))
			}
		}
	}
	return lines
}

// rivalsOf are drover's settings of a peer's language.
func rivalsOf(name string, contenders []load.Contender) (out []string) {
	language := "python"
	for _, p := range all {
		if p.name == name {
			language = p.language
		}
	}
	for _, of := range contenders {
		if isOurs(of.Name) && (language == "go") == strings.HasPrefix(of.Name, "drover-go") {
			out = append(out, of.Name)
		}
	}
	return out
}

// memoryKinds are the kinds of concurrency in the table of memory.
var memoryKinds = []string{load.Wait, load.Awaits}

// memory prints the memory of each setup, with as many messages in flight as it has.
func (c *Command) memory(ctx context.Context, turns *rounds, e *environment, installed []peer) error {
	fmt.Printf("\nproportional memory (PSS) without brokers of their own, %d messages of 1 kB in flight, medians of %d rounds, MB\n\n", load.InFlight, c.Rounds)
	fmt.Println("| setup | function | messages in flight | idle | in flight | beyond idle |")
	fmt.Println("| --- | --- | ---: | ---: | ---: | ---: |")
	for _, kind := range memoryKinds {
		var contenders []load.Contender
		for _, of := range c.contenders(e, installed, load.Cell{Work: kind, Time: time.Second}) {
			if of.Warm == 0 { // finding its numbers takes too long here
				contenders = append(contenders, of)
			}
		}
		messages := make(map[string]int)
		idle, busy := make(map[string][]float64), make(map[string][]float64)
		contenders, err := turns.measure(ctx, "memory, "+kind, contenders, func(of load.Contender) error {
			m, err := load.MeasureMemory(ctx, of, kind)
			if err == nil {
				messages[of.Name] = m.Messages
				idle[of.Name], busy[of.Name] = append(idle[of.Name], float64(m.Idle)/1e6), append(busy[of.Name], float64(m.InFlight)/1e6)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, of := range contenders {
			before, after := rig.Median(idle[of.Name]), rig.Median(busy[of.Name])
			fmt.Printf("| %s | %s | %d | %.0f | %.0f | %.1f |\n", of.Name, kind, messages[of.Name], before, after, after-before)
		}
	}
	return nil
}
