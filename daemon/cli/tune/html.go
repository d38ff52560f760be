package tune

import (
	_ "embed"
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-run/drover/internal/chart"
)

//go:embed report.html
var page string

// WriteHTML writes the report as a self-contained page: it loads no script, font or other file.
func (r *Report) WriteHTML(to io.Writer) error {
	var s chart.Drawing
	kind := "sync"
	if r.Async {
		kind = "async"
	}
	s.Put(`<h1>%s</h1>`, r.Function)
	s.Put(`<p class="about">%s, %s. %s. %d cores, %.0f s, %s.</p>`, r.Handler, kind, r.Messages, r.Cores, r.Took, r.Began.Format("2006-01-02 15:04"))
	if r.Stopped {
		s.Put(`<div class="card stopped">It was stopped before the whole grid was measured.</div>`)
	}
	s.Put(`<div class="card says">`)
	for _, line := range r.AdviceLines() {
		s.Put(`<p>%s</p>`, line)
	}
	s.Put(`</div>`)
	r.putCharts(&s)
	r.putTable(&s)
	if skipped := r.SkippedLines(); len(skipped)+len(r.Notes) > 0 {
		s.Put(`<h2>Left out, and noted</h2><ul>`)
		for _, line := range slices.Concat(skipped, r.Notes) {
			s.Put(`<li>%s</li>`, line)
		}
		s.Put(`</ul>`)
	}
	if _, err := strings.NewReplacer("{{FUNCTION}}", html.EscapeString(r.Function), "{{BODY}}", s.String()).WriteString(to, page); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// putCharts adds a heat map for each metric and panel, and line charts for panels with several columns.
func (r *Report) putCharts(s *chart.Drawing) {
	panels := r.splitPanels()
	s.Put(`<h2>Over the grid</h2>`)
	s.Put(`<p class="about">A solid frame is the cheapest within 5 %% of the best throughput, a dashed one the best.</p>`)
	s.Put(`<div class="plots">`)
	for _, m := range metrics {
		for _, p := range panels {
			if len(p.rows) == 0 {
				continue
			}
			unit := m.unit
			if p.title != "" {
				unit += ", " + p.title
			}
			s.Put(`<figure class="card"><figcaption>%s <span>%s</span></figcaption>`, m.name, unit)
			r.drawHeatmap(s, m, p)
			s.Put(`</figure>`)
		}
	}
	s.Put(`</div><div class="plots lower">`)
	for _, m := range metrics {
		for _, p := range panels {
			if len(p.columns) > 1 {
				s.Put(`<figure class="card">`)
				r.drawLines(s, m, p)
				s.Put(`</figure>`)
			}
		}
	}
	s.Put(`</div>`)
}

// putTable adds a row for each measured cell, and one for the choice of auto.
func (r *Report) putTable(s *chart.Drawing) {
	columns, most := r.usedDimensions(), 0.0
	s.Put(`<h2>The numbers</h2><div class="card scroll"><table><thead><tr>`)
	for _, d := range columns {
		s.Put(`<th scope="col">%s</th>`, d.name)
	}
	s.Put(`<th scope="col">calls/s</th><th scope="col">95 %%</th><th scope="col"><span aria-hidden="true"></span></th><th scope="col">p50</th><th scope="col">p99</th><th scope="col">CPU, cores</th>`)
	s.Put(`<th scope="col">memory</th><th scope="col">calls</th><th scope="col" class="marks"></th></tr></thead><tbody>`)
	for i := range r.Cells {
		most = max(most, r.Cells[i].Throughput)
	}
	row := func(c *Cell, marks string) {
		class := ""
		if strings.Contains(marks, "cheapest") {
			class = "chosen"
		}
		s.Put(`<tr class="%s">`, class)
		for _, d := range columns {
			text := "–"
			if n := d.value(c.Settings); n > 0 {
				text = strconv.Itoa(n)
			}
			s.Put(`<td>%s</td>`, text)
		}
		if c.Problem != "" {
			s.Put(`<td colspan="8" class="marks">%s</td><td class="marks"></td></tr>`, c.Problem)
			return
		}
		s.Put(`<td>%s</td><td>%s</td><td><span class="bar" aria-hidden="true"><i style="width:%.1f%%"></i></span></td>`, FormatNumber(c.Throughput), c.marginText(), 100*c.Throughput/max(most, 1e-9))
		s.Put(`<td>%s</td><td>%s</td><td>%.2f</td><td>%s</td><td>%d</td><td class="marks">%s</td></tr>`,
			FormatSeconds(c.P50), FormatSeconds(c.P99), c.CPU, formatMemory(c.Memory), c.Calls, marks)
	}
	for _, c := range r.SortedCells() {
		row(&c, r.cellMarks(&c))
	}
	if r.Auto != nil {
		row(r.Auto, "auto")
	}
	s.Put(`</tbody></table></div>`)
}

// The sizes of a heat map, in pixels.
const (
	cellWidth, cellHeight = 96, 48
	leftMargin            = 92
	topMargin             = 44
	bottomMargin          = 8
)

// drawHeatmap draws a metric over a panel: one rectangle for each cell, with its number.
func (r *Report) drawHeatmap(s *chart.Drawing, m metric, p *panel) {
	scale := r.newScale(m)
	wide, high := leftMargin+len(p.columns)*cellWidth+8, topMargin+len(p.rows)*cellHeight+bottomMargin
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
			r.drawCell(s, m, c, scale, leftMargin+j*cellWidth, y)
		}
	}
	s.Put(`</svg>`)
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
func (r *Report) drawLines(s *chart.Drawing, m metric, p *panel) {
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
