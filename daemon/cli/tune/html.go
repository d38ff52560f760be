package tune

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"

	"github.com/drover-run/drover/internal/chart"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"number": FormatNumber, "seconds": FormatSeconds, "megabytes": formatMemory,
}).Parse(page))

// WriteHTML writes the report as a self-contained page: it loads no script, font or other file.
func (r *Report) WriteHTML(to io.Writer) error {
	type row struct {
		Cell
		Numbers []string
		Marks   string
		Part    string // of the best throughput, in percent
		Chosen  bool
	}
	view := struct {
		*Report
		Columns []string
		Rows    []row
		Heats   []heatView
		Lines   []template.HTML
		Says    []string
	}{Report: r, Says: r.AdviceLines()}
	columns, most := r.usedDimensions(), 0.0
	for _, d := range columns {
		view.Columns = append(view.Columns, d.name)
	}
	for i := range r.Cells {
		most = max(most, r.Cells[i].Throughput)
	}
	add := func(c Cell, marks string) {
		out := row{Cell: c, Marks: marks, Part: fmt.Sprintf("%.1f%%", 100*c.Throughput/max(most, 1e-9)), Chosen: strings.Contains(marks, "cheapest")}
		for _, d := range columns {
			text := "–"
			if n := d.value(c.Settings); n > 0 {
				text = fmt.Sprint(n)
			}
			out.Numbers = append(out.Numbers, text)
		}
		view.Rows = append(view.Rows, out)
	}
	for _, c := range r.SortedCells() {
		add(c, r.cellMarks(&c))
	}
	if r.Auto != nil {
		add(*r.Auto, "auto")
	}
	panels := r.splitPanels()
	for _, m := range metrics {
		for _, p := range panels {
			if len(p.rows) > 0 {
				view.Heats = append(view.Heats, heatView{m.name, m.unit, p.title, r.drawHeatmap(m, p)})
			}
		}
	}
	for _, m := range metrics {
		for _, p := range panels {
			if len(p.columns) > 1 {
				view.Lines = append(view.Lines, r.drawLines(m, p))
			}
		}
	}
	if err := pageTemplate.Execute(to, view); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

type heatView struct {
	Name, Unit, Title string
	SVG               template.HTML
}

// The sizes of a heat map, in pixels.
const (
	cellWidth, cellHeight = 96, 48
	leftMargin            = 92
	topMargin             = 44
	bottomMargin          = 8
)

// drawHeatmap draws a metric over a panel: one rectangle for each cell, with its number.
func (r *Report) drawHeatmap(m metric, p *panel) template.HTML {
	scale := r.newScale(m)
	wide, high := leftMargin+len(p.columns)*cellWidth+8, topMargin+len(p.rows)*cellHeight+bottomMargin
	var s chart.Drawing
	s.Put(`<svg viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s over processes and %s" class="heat %s">`, wide, high, wide, high, m.name, p.column.name, strings.ToLower(m.name))
	s.Put(`<title>%s (%s) over processes and %s</title>`, m.name, m.unit, p.column.name)
	if p.columns[0] > 0 {
		s.Put(`<text class="axis" x="%d" y="16" text-anchor="middle">%s</text>`, leftMargin+len(p.columns)*cellWidth/2, p.column.name)
	}
	s.Put(`<text class="axis" x="12" y="%d" text-anchor="middle" transform="rotate(-90 12 %d)">processes</text>`, topMargin+len(p.rows)*cellHeight/2, topMargin+len(p.rows)*cellHeight/2)
	for j, k := range p.columns {
		if k > 0 {
			s.Put(`<text class="tick" x="%d" y="%d" text-anchor="middle">%d</text>`, leftMargin+j*cellWidth+cellWidth/2, topMargin-8, k)
		}
	}
	for i, n := range p.rows {
		y := topMargin + i*cellHeight
		s.Put(`<text class="tick" x="%d" y="%d" text-anchor="end">%d</text>`, leftMargin-10, y+cellHeight/2+5, n)
		for j, k := range p.columns {
			c := p.cells[[2]int{n, k}]
			if c == nil {
				continue
			}
			r.drawCell(&s, m, c, scale, leftMargin+j*cellWidth, y)
		}
	}
	s.Put(`</svg>`)
	return template.HTML(s.String()) //nolint:gosec // Put makes all of it, and escapes
}

// drawCell draws one cell of a heat map.
func (r *Report) drawCell(s *chart.Drawing, m metric, c *Cell, scale func(float64) float64, x, y int) {
	text, part := "?", 0.0
	about := c.String() + ": " + c.Problem
	if c.Problem == "" {
		part = scale(m.value(c))
		text = m.text(m.value(c))
		about = fmt.Sprintf("%v: %s calls/s, p50 %s, p99 %s, %.2f cores, %s", c.Settings, FormatNumber(c.Throughput), FormatSeconds(c.P50), FormatSeconds(c.P99), c.CPU, formatMemory(c.Memory))
	}
	if marks := r.cellMarks(c); marks != "" {
		about += " (" + marks + ")"
	}
	ink := "low"
	if part > 0.68 {
		ink = "high"
	}
	s.Put(`<g><title>%s</title><rect class="field" x="%d" y="%d" width="%d" height="%d" rx="5" fill-opacity="%.2f"/>`, about, x+2, y+2, cellWidth-4, cellHeight-4, 0.06+0.9*part)
	switch {
	case r.Cheapest != nil && c.Settings == r.Cheapest.Settings:
		s.Put(`<rect class="cheapest" x="%d" y="%d" width="%d" height="%d" rx="5"/>`, x+2, y+2, cellWidth-4, cellHeight-4)
	case r.Best != nil && c.Settings == r.Best.Settings:
		s.Put(`<rect class="best" x="%d" y="%d" width="%d" height="%d" rx="5"/>`, x+2, y+2, cellWidth-4, cellHeight-4)
	}
	s.Put(`<text class="value %s" x="%d" y="%d" text-anchor="middle">%s</text></g>`, ink, x+cellWidth/2, y+cellHeight/2+5, text)
}

// The sizes of a line chart, in pixels.
const (
	chartWidth, chartHeight = 430, 230
	plotLeft, plotRight     = 64, 96
	plotTop, plotBottom     = 34, 40
	plotWidth               = chartWidth - plotLeft - plotRight
	plotHeight              = chartHeight - plotTop - plotBottom
	labelHeight             = 14
	lineColours             = 6
)

// drawLines draws a metric against the number in a panel's columns: a line for each number of
// processes, with its name at the end. The axis of columns is logarithmic.
func (r *Report) drawLines(m metric, p *panel) template.HTML {
	most := 0.0
	for i := range r.Cells {
		most = max(most, m.value(&r.Cells[i]))
	}
	top, tick := chart.Scale(most)
	x := func(k int) float64 {
		low, high := math.Log(float64(max(p.columns[0], 1))), math.Log(float64(p.columns[len(p.columns)-1]))
		return plotLeft + plotWidth*(math.Log(float64(max(k, 1)))-low)/max(high-low, 1e-9)
	}
	y := func(v float64) float64 { return plotTop + plotHeight*(1-v/top) }
	title := fmt.Sprintf("%s (%s) by %s", m.name, m.unit, p.column.name)
	if p.title != "" {
		title += ", " + p.title
	}
	var s chart.Drawing
	s.Put(`<svg viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s" class="lines"><title>%s</title>`, chartWidth, chartHeight, chartWidth, chartHeight, title, title)
	s.Put(`<text class="axis" x="%d" y="18">%s</text>`, plotLeft, title)
	for v := 0.0; v <= top+tick/2; v += tick {
		label := "0"
		if v > 0 {
			label = m.text(v)
		}
		s.Put(`<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text class="tick" x="%d" y="%.1f" text-anchor="end">%s</text>`,
			plotLeft, plotLeft+plotWidth, y(v), y(v), plotLeft-8, y(v)+4, label)
	}
	for _, k := range p.columns {
		s.Put(`<text class="tick" x="%.1f" y="%d" text-anchor="middle">%d</text>`, x(k), chartHeight-plotBottom+18, k)
	}
	var labels []float64
	for i, n := range p.rows {
		var points [][2]float64
		colour := i % lineColours
		var dots chart.Drawing
		for _, k := range p.columns {
			c := p.cells[[2]int{n, k}]
			if c == nil || c.Problem != "" {
				continue
			}
			at := [2]float64{x(k), y(m.value(c))}
			points = append(points, at)
			dots.Put(`<circle class="dot c%d" cx="%.1f" cy="%.1f" r="4"><title>%s: %s</title></circle>`, colour, at[0], at[1], c.String(), m.text(m.value(c)))
		}
		if len(points) == 0 {
			continue
		}
		s.Polyline(points, fmt.Sprintf(`class="line c%d"`, colour))
		_, _ = s.WriteString(dots.String()) // never fails
		last := points[len(points)-1]
		at := placeLabel(labels, last[1])
		labels = append(labels, at)
		s.Put(`<text class="name c%d" x="%.1f" y="%.1f">%s</text>`, colour, last[0]+9, at+4, withNoun(n, "process", "processes"))
	}
	s.Put(`</svg>`)
	return template.HTML(s.String()) //nolint:gosec // Put makes all of it, and escapes
}

// placeLabel returns the nearest position for a label at which it covers no other.
func placeLabel(taken []float64, at float64) float64 {
	free := func(y float64) bool {
		for _, t := range taken {
			if math.Abs(t-y) < labelHeight {
				return false
			}
		}
		return true
	}
	for off := 0.0; ; off++ {
		if free(at - off) {
			return at - off
		}
		if free(at + off) {
			return at + off
		}
	}
}
