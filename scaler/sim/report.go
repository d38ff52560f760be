package sim

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// WriteReport writes comparisons as a table, with their totals.
func WriteReport(to io.Writer, comparisons []Comparison) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\t\n", args...) }
	row("trace\tpolicy\tinstance-s\t÷ clairvoyant\tlate\tavoidably\tp99 age\tturns\tinterrupted")
	type total struct {
		cost, mean float64
		late, miss int64
	}
	totals, order := make(map[string]*total), []string(nil)
	bound := 0.0
	for _, c := range comparisons {
		row("%s\t%s\t%.0f\t1.00\t%d\t0\t\t\t", c.Trace.Name, c.Bound.Policy, c.Bound.InstanceSeconds, c.Bound.Late)
		bound += c.Bound.InstanceSeconds
		for _, r := range c.Results {
			row("\t%s\t%.0f\t%.2f\t%.3f%%\t%d\t%v\t%d\t%d", r.Policy, r.InstanceSeconds, c.CostRatio(r), 100*r.LateShare(), c.AvoidableLate(r), r.P99, r.Turns, r.Interrupted)
			t := totals[r.Policy]
			if t == nil {
				t = new(total)
				totals[r.Policy] = t
				order = append(order, r.Policy)
			}
			t.cost += r.InstanceSeconds
			t.mean += c.CostRatio(r) / float64(len(comparisons))
			t.late += r.Late
			t.miss += c.AvoidableLate(r)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if len(comparisons) < 2 {
		return nil
	}
	_, _ = fmt.Fprintln(to, "\nAll traces:")
	for _, name := range order {
		t := totals[name]
		if _, err := fmt.Fprintf(to, "  %-18s %12.0f instance-seconds, %.2f times the clairvoyant's (%.2f on average of the traces), %d messages late, %d avoidably\n",
			name, t.cost, t.cost/bound, t.mean, t.late, t.miss); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	return nil
}
