package tune

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/term"
)

// metric is one of the numbers that are drawn over the grid.
type metric struct {
	name, unit   string
	value        func(*Cell) float64
	text         func(float64) string
	log          bool // drawn on a logarithmic scale
	lessIsBetter bool
}

var metrics = []metric{
	{"Throughput", "calls/s", func(c *Cell) float64 { return c.Throughput }, FormatNumber, false, false},
	{"p99", "latency", func(c *Cell) float64 { return c.P99 }, FormatSeconds, true, true},
	{"CPU", "cores", func(c *Cell) float64 { return c.CPU }, func(v float64) string { return fmt.Sprintf("%.2f", v) }, false, true},
}

// FormatNumber returns a rate with three digits, or with all digits before the point.
func FormatNumber(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// FormatSeconds returns a time in the unit that suits its size.
func FormatSeconds(v float64) string {
	switch {
	case v <= 0:
		return "-"
	case v < 0.001:
		return fmt.Sprintf("%.0f µs", v*1e6)
	case v < 0.1:
		return fmt.Sprintf("%.1f ms", v*1e3)
	case v < 1:
		return fmt.Sprintf("%.0f ms", v*1e3)
	}
	return fmt.Sprintf("%.2f s", v)
}

func formatMemory(n uint64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// cellMarks returns the marks of a cell as text.
func (r *Report) cellMarks(c *Cell) string {
	var out []string
	if r.Best != nil && c.Settings == r.Best.Settings {
		out = append(out, "best")
	}
	if r.Cheapest != nil && c.Settings == r.Cheapest.Settings {
		out = append(out, "cheapest")
	}
	if c.Failed > 0 {
		out = append(out, fmt.Sprintf("%.0f %% failed", math.Max(1, 100*c.failureRate())))
	}
	if c.Unsettled {
		out = append(out, "not settled")
	}
	if c.Problem == "" && c.Calls < FewCalls {
		out = append(out, "few calls")
	}
	return strings.Join(out, ", ")
}

// WriteText writes the report as text with tables of at most that many columns; 0 is no limit.
func (r *Report) WriteText(to io.Writer, columns int) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %s: %s\n", r.Function, r.Handler, r.Messages)
	kind := "sync"
	if r.Async {
		kind = "async"
	}
	fmt.Fprintf(&b, "%s function, %d cores, %.0f s", kind, r.Cores, r.Took)
	if r.Stopped {
		fmt.Fprint(&b, "; stopped before all was measured")
	}
	fmt.Fprint(&b, "\n\n")
	table := r.Table()
	for _, line := range table.Lines(columns, term.Palette{}) {
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintln(&b)
	for _, m := range metrics {
		r.writeHeatmap(&b, m, columns)
	}
	for _, line := range r.SkippedLines() {
		fmt.Fprintf(&b, "left out: %s\n", line)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	if len(r.Skipped)+len(r.Notes) > 0 {
		fmt.Fprintln(&b)
	}
	for _, line := range r.AdviceLines() {
		fmt.Fprintln(&b, line)
	}
	_, err := to.Write(b.Bytes())
	return err
}

const barWidth = 20

// usedDimensions returns the numbers that differ from 0 in some cell.
func (r *Report) usedDimensions() (out []dimension) {
	for _, d := range dimensions {
		for i := range r.Cells {
			if d.value(r.Cells[i].Settings) > 0 {
				out = append(out, d)
				break
			}
		}
	}
	return out
}

// Table returns a table of the measured cells, ordered by their settings, with the cell of auto last.
func (r *Report) Table() live.Table {
	var t live.Table
	used, most := r.usedDimensions(), 0.0
	for i := range r.Cells {
		most = max(most, r.Cells[i].Throughput)
	}
	for _, d := range used {
		t.Columns = append(t.Columns, live.Column{Title: d.name, Right: true})
	}
	t.Columns = append(t.Columns,
		live.Column{Title: "calls/s", Right: true}, live.Column{Title: "95 %", Right: true, Drop: 6}, live.Column{Drop: 5},
		live.Column{Title: "p50", Right: true, Drop: 4}, live.Column{Title: "p99", Right: true, Drop: 1},
		live.Column{Title: "CPU", Right: true, Drop: 2}, live.Column{Title: "memory", Right: true, Drop: 3}, live.Column{Min: 8})
	addRow := func(c *Cell, marks string) {
		var texts []string
		for _, d := range used {
			text := fmt.Sprint(d.value(c.Settings))
			if text == "0" {
				text = "-"
			}
			texts = append(texts, text)
		}
		if c.Problem != "" {
			texts = append(texts, "-", "-", "", "-", "-", "-", "-", c.Problem)
		} else {
			texts = append(texts, FormatNumber(c.Throughput), c.marginText(), live.BarText(c.Throughput/max(most, 1e-9), barWidth, false), FormatSeconds(c.P50), FormatSeconds(c.P99),
				fmt.Sprintf("%.2f", c.CPU), formatMemory(c.Memory), marks)
		}
		row := make([]live.Cell, len(texts))
		for i, text := range texts {
			row[i].Text = term.Printable(text)
		}
		t.Rows = append(t.Rows, row)
	}
	for _, c := range r.SortedCells() {
		addRow(&c, r.cellMarks(&c))
	}
	if r.Auto != nil {
		addRow(r.Auto, "auto")
	}
	return t
}

// panel is a part of the grid that is drawn as one: rows of processes, columns of the number that
// the function uses, and one value of the third number if that varies.
type panel struct {
	title         string // with the value of the third; may be empty
	column        dimension
	rows, columns []int
	cells         map[[2]int]*Cell
}

// splitPanels returns the parts of the grid.
func (r *Report) splitPanels() (out []*panel) {
	column, third := dimensions[1], dimension{}
	if r.Async {
		column = dimensions[2]
		if len(valuesOf(r.Cells, dimensions[1])) > 1 {
			third = dimensions[1]
		}
	} else if len(valuesOf(r.Cells, dimensions[2])) > 1 {
		third = dimensions[2]
	}
	by := []int{0}
	if third.value != nil {
		by = valuesOf(r.Cells, third)
	}
	for _, v := range by {
		p := &panel{column: column, cells: make(map[[2]int]*Cell)}
		if third.value != nil {
			p.title = fmt.Sprintf("%d %s", v, third.name)
		}
		var own []Cell
		for i := range r.Cells {
			c := &r.Cells[i]
			if third.value == nil || third.value(c.Settings) == v {
				own = append(own, *c)
				p.cells[[2]int{c.Processes, column.value(c.Settings)}] = c
			}
		}
		p.rows, p.columns = valuesOf(own, dimensions[0]), valuesOf(own, column)
		out = append(out, p)
	}
	return out
}

// heatWidth is the width of a number in a heat map, with its shade.
const heatWidth = 13

// writeHeatmap writes a metric over the grid. A map that is too wide is split into parts, one below the
// other.
func (r *Report) writeHeatmap(to io.Writer, m metric, columns int) {
	scale := r.newScale(m)
	for _, p := range r.splitPanels() {
		if len(p.rows) == 0 {
			continue
		}
		title := fmt.Sprintf("%s, %s", m.name, m.unit)
		if p.title != "" {
			title += ", " + p.title
		}
		head := "processes"
		if p.columns[0] > 0 {
			head += " \\ " + p.column.name
		}
		fmt.Fprintln(to, title)
		most := len(p.columns)
		if columns > 0 {
			most = max((columns-utf8.RuneCountInString(head))/heatWidth, 1)
		}
		for part := range slices.Chunk(p.columns, most) {
			p.writePart(to, m, scale, head, part)
		}
		fmt.Fprintln(to)
	}
}

// writePart writes some columns of a heat map.
func (p *panel) writePart(to io.Writer, m metric, scale func(float64) float64, head string, columns []int) {
	fmt.Fprint(to, head)
	for _, n := range columns {
		text := fmt.Sprint(n)
		if n == 0 {
			text = ""
		}
		fmt.Fprint(to, padLeft(text, heatWidth))
	}
	fmt.Fprintln(to)
	for _, n := range p.rows {
		fmt.Fprintf(to, "%*d", utf8.RuneCountInString(head), n)
		for _, k := range columns {
			text := ""
			switch c := p.cells[[2]int{n, k}]; {
			case c == nil:
			case c.Problem != "":
				text = "?"
			default:
				text = m.text(m.value(c)) + " " + shadeText(scale(m.value(c)))
			}
			fmt.Fprint(to, padLeft(text, heatWidth))
		}
		fmt.Fprintln(to)
	}
}

func padLeft(text string, width int) string {
	return strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 1)) + text
}

// shadeText returns two characters whose darkness shows a fraction.
func shadeText(part float64) string {
	return strings.Repeat(string([]rune("·░▒▓█")[min(int(part*5), 4)]), 2)
}

// valuesOf returns the values of a number in cells, in ascending order.
func valuesOf(cells []Cell, d dimension) (out []int) {
	for i := range cells {
		if v := d.value(cells[i].Settings); !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// newScale returns a function that maps a value to the range from 0, the minimum of all cells, to 1,
// the maximum. A scale that is not logarithmic starts at zero.
func (r *Report) newScale(m metric) func(float64) float64 {
	least, most := math.Inf(1), 0.0
	for i := range r.Cells {
		if c := &r.Cells[i]; c.Problem == "" && m.value(c) > 0 {
			least, most = min(least, m.value(c)), max(most, m.value(c))
		}
	}
	return func(v float64) float64 {
		switch {
		case v <= 0 || most <= 0:
			return 0
		case !m.log:
			return v / most
		case most == least:
			return 0
		}
		return math.Log(v/least) / math.Log(most/least)
	}
}
