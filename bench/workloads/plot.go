package workloads

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/drover-run/drover/internal/chart"
)

// The measures of a plot, in pixels, and its colours.
const (
	plotWidth  = 920
	plotLeft   = 76
	plotRight  = 128
	plotTop    = 64
	rateHeight = 240
	laneHeight = 34
	laneGap    = 12
	ink        = "#1f2933"
	faint      = "#7b8794"
	line       = "#e4e7eb"
	rateColour = "#2563eb"
	bestColour = "#059669"
)

var laneColours = []string{"#b45309", "#7c3aed", "#be185d"}

// drawing is a chart over time.
type drawing struct {
	chart.Drawing
	end float64 // seconds of the axis
}

func (d *drawing) x(seconds float64) float64 {
	return plotLeft + (plotWidth-plotLeft-plotRight)*seconds/d.end
}

// lane is one of the settings over time.
type lane struct {
	name  string
	value func(point) int
}

// plot draws the course of auto: the throughput, with the best cell's and 0.9 of that, and the
// settings below. It is a self-contained SVG.
func (r *report) plot() string {
	lanes := r.lanes()
	bottom := float64(plotTop + rateHeight)
	height := bottom + 34 + float64(len(lanes))*(laneHeight+laneGap) + 8
	d := &drawing{end: max(r.Auto.end(), 1)}
	d.Put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" font-family="system-ui, -apple-system, 'Segoe UI', sans-serif" font-size="12" fill="%s">`, plotWidth, height, ink)
	d.Put(`<rect width="%d" height="%.0f" rx="6" fill="#ffffff"/>`, plotWidth, height)
	d.Text(plotLeft, 26, `font-size="16" font-weight="600"`, r.Name+": "+r.What)
	d.Text(plotLeft, 46, fmt.Sprintf(`fill="%s"`, faint), r.caption())

	top := 0.0
	rates := r.rates()
	for _, v := range rates {
		top = max(top, v[1])
	}
	for _, l := range r.Stages {
		top = max(top, l.Best.Rate)
	}
	top, step := chart.Scale(top * 1.04)
	y := func(rate float64) float64 { return bottom - rateHeight*min(rate, top)/top }
	for v := 0.0; v <= top+step/2; v += step {
		d.Line(plotLeft, y(v), plotWidth-plotRight, y(v), fmt.Sprintf(`stroke="%s"`, line))
		d.Text(plotLeft-8, y(v)+4, fmt.Sprintf(`text-anchor="end" fill="%s"`, faint), chart.Number(v))
	}
	d.Text(plotLeft, plotTop-6, fmt.Sprintf(`fill="%s" font-size="11"`, faint), map[bool]string{true: "messages a second", false: "messages a second, the geometric mean of the functions"}[len(r.Functions) == 1])
	d.seconds(bottom, height-8)
	for i, l := range r.Stages {
		d.level(l, y, i == len(r.Stages)-1)
	}
	d.curve(rates, y, bottom)
	for i, l := range lanes {
		d.lane(l, r.Auto.Points, bottom+34+float64(i)*(laneHeight+laneGap), laneColours[i%len(laneColours)])
	}
	d.WriteString("</svg>\n")
	return d.String()
}

// caption returns the figures as text.
func (r *report) caption() string {
	var parts []string
	for i, l := range r.Stages {
		name := ""
		if len(r.Stages) > 1 {
			name = fmt.Sprintf("part %d: ", i+1)
		}
		parts = append(parts, fmt.Sprintf("%s%.2f of the best cell, 0.9 of it after %s", name, l.Ratio, after(l.Reached)))
	}
	if last := r.Auto.Points[len(r.Auto.Points)-1]; last.Phase != "" {
		parts = append(parts, fmt.Sprintf("at the end: %s, %s", strings.Join(last.Kinds, " and "), last.Phase))
	}
	return strings.Join(parts, "; ")
}

// rates are what auto did: seconds, and the messages a second around them.
func (r *report) rates() (out [][2]float64) {
	const half = 1.0 // of the window that each is the mean of
	for _, p := range r.Auto.Points {
		from, to := max(p.At-half, 0), min(p.At+half, r.Auto.end())
		for _, flip := range r.Auto.Flips { // a mean does not cross a change of the load
			if p.At >= flip {
				from = max(from, flip)
			} else {
				to = min(to, flip)
			}
		}
		if to > from {
			out = append(out, [2]float64{p.At, r.Auto.rate(from, to)})
		}
	}
	return out
}

// seconds draws the axis, and the marks of it through all that is below.
func (d *drawing) seconds(bottom, end float64) {
	step := chart.Tick(d.end / 8)
	for s := 0.0; s <= d.end; s += step {
		d.Line(d.x(s), bottom, d.x(s), end, fmt.Sprintf(`stroke="%s"`, line))
		d.Text(d.x(s), bottom+16, fmt.Sprintf(`text-anchor="middle" fill="%s"`, faint), chart.Number(s)+" s")
	}
}

// level draws what the best cell does, and 0.9 of it.
func (d *drawing) level(l stage, y func(float64) float64, last bool) {
	from, to := d.x(l.From), d.x(l.To)
	d.Line(from, y(l.Best.Rate), to, y(l.Best.Rate), fmt.Sprintf(`stroke="%s" stroke-width="1.5"`, bestColour))
	d.Line(from, y(0.9*l.Best.Rate), to, y(0.9*l.Best.Rate), fmt.Sprintf(`stroke="%s" stroke-width="1.5" stroke-dasharray="5 4"`, bestColour))
	if l.From > 0 {
		d.Line(from, plotTop, from, plotTop+rateHeight, fmt.Sprintf(`stroke="%s" stroke-dasharray="2 3"`, faint))
	}
	if l.Reached >= 0 {
		x := d.x(l.From + l.Reached)
		d.Put(`<circle cx="%.1f" cy="%.1f" r="4" fill="#fff" stroke="%s" stroke-width="2"><title>0.9 after %s</title></circle>`, x, y(0.9*l.Best.Rate), bestColour, after(l.Reached))
	}
	if last {
		// Far enough apart to be read, where the two levels are not.
		best := y(l.Best.Rate) + 4
		d.Text(to+8, best, fmt.Sprintf(`fill="%s"`, bestColour), fmt.Sprintf("best %v", l.Best.Settings))
		d.Text(to+8, max(y(0.9*l.Best.Rate)+4, best+14), fmt.Sprintf(`fill="%s"`, bestColour), "0.9 of it")
	}
}

func (d *drawing) curve(points [][2]float64, y func(float64) float64, bottom float64) {
	if len(points) == 0 {
		return
	}
	path := make([][2]float64, 0, len(points)+2)
	for _, p := range points {
		path = append(path, [2]float64{d.x(p[0]), y(p[1])})
	}
	d.Polyline(path, fmt.Sprintf(`fill="none" stroke="%s" stroke-width="2" stroke-linejoin="round"`, rateColour))
	path = append(path, [2]float64{path[len(path)-1][0], bottom}, [2]float64{path[0][0], bottom})
	d.Put(`<polygon fill="%s" fill-opacity="0.08" points="%s"/>`, rateColour, chart.Points(path))
}

// lane draws a number by steps, each as high as its logarithm, with the number where there is
// room for it.
func (d *drawing) lane(l lane, points []point, top float64, colour string) {
	most := 1
	for _, p := range points {
		most = max(most, l.value(p))
	}
	bottom := top + laneHeight
	y := func(n int) float64 {
		if most == 1 {
			return bottom - laneHeight/2
		}
		return bottom - 4 - (laneHeight-16)*math.Log(float64(max(n, 1)))/math.Log(float64(most))
	}
	d.Text(plotLeft-8, bottom-laneHeight/2+4, fmt.Sprintf(`text-anchor="end" fill="%s"`, colour), l.name)
	d.Line(plotLeft, bottom, plotWidth-plotRight, bottom, fmt.Sprintf(`stroke="%s"`, line))
	var path [][2]float64
	was, labelled := -1, math.Inf(-1)
	for _, p := range points {
		n, x := l.value(p), d.x(p.At)
		if n == was {
			continue
		}
		if was >= 0 {
			path = append(path, [2]float64{x, y(was)})
		}
		path = append(path, [2]float64{x, y(n)})
		if x > labelled {
			d.Text(x+2, y(n)-3, fmt.Sprintf(`fill="%s" font-size="10"`, colour), strconv.Itoa(n))
			labelled = x + 30
		}
		was = n
	}
	end := d.x(points[len(points)-1].At)
	d.Polyline(append(path, [2]float64{end, y(was)}), fmt.Sprintf(`fill="none" stroke="%s" stroke-width="2"`, colour))
	d.Text(end+8, y(was)+4, fmt.Sprintf(`fill="%s" font-weight="600"`, colour), strconv.Itoa(was))
}
