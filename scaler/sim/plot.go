package sim

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/drover-run/drover/internal/chart"
)

// The dimensions of a plot, in pixels.
const (
	plotWidth  = 900
	plotLeft   = 90
	plotRight  = 20
	panelHigh  = 70 // height of one of the two curves of a panel
	panelGap   = 8
	panelHead  = 20
	plotHead   = 30
	plotFoot   = 24
	plotPoints = 300
)

// Plot writes an SVG: the arrivals, and for each policy a panel with the backlog and the number
// of instances. All panels of a comparison have the same scale; values above it are cut off.
func (c Comparison) Plot(to io.Writer) error {
	all := append([]Result{c.Bound}, c.Results...)
	arrivals := make([]float64, c.Trace.Steps())
	for i := range arrivals {
		arrivals[i] = float64(c.Trace.ArrivalsAt(i)) / step.Seconds()
	}
	// An outlier must not flatten the others.
	backlogTop, instancesTop := scaleOf(all, func(r Result) []float64 { return r.Backlog }), scaleOf(all, func(r Result) []float64 { return r.Instances })
	panel := panelHead + 2*panelHigh + panelGap
	height := plotHead + panelHead + panelHigh + len(all)*(panel+panelGap) + plotFoot
	var d chart.Drawing
	d.Put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`, plotWidth, height)
	d.Put(`<rect width="%d" height="%d" fill="#fff"/>`, plotWidth, height)
	d.Text(plotLeft, 20, `font-size="15" font-weight="bold"`, fmt.Sprintf("%s: %s messages in %v", c.Trace.Name, groupDigits(c.Trace.Messages()), time.Duration(c.Trace.Steps())*step))
	y := float64(plotHead + panelHead)
	d.Text(plotLeft, y-6, "", "arrivals a second")
	drawCurve(&d, arrivals, peak(arrivals), y, "#666")
	y += panelHigh + panelGap
	for i, r := range all {
		head := fmt.Sprintf("%s: %s instance-seconds", r.Policy, groupDigits(int64(r.InstanceSeconds)))
		if i > 0 {
			head += fmt.Sprintf(", %.2f × clairvoyant; late %.2f%%, avoidably %.2f%%; p99 %v; %d turns",
				c.CostRatio(r), 100*r.LateShare(), 100*float64(c.AvoidableLate(r))/float64(max(r.Messages, 1)), r.P99, r.Turns)
		}
		y += panelHead
		d.Text(plotLeft, y-6, `font-weight="bold"`, head)
		drawCurve(&d, r.Backlog, backlogTop, y, "#c33")
		d.Text(plotLeft-34, y+panelHigh/2, `text-anchor="end" fill="#c33"`, "waiting")
		y += panelHigh + panelGap
		drawCurve(&d, r.Instances, instancesTop, y, "#27c")
		d.Text(plotLeft-34, y+panelHigh/2, `text-anchor="end" fill="#27c"`, "instances")
		y += panelHigh + panelGap
	}
	length := time.Duration(c.Trace.Steps()) * step
	d.Text(plotLeft, y+12, "", "0")
	d.Text(plotWidth-plotRight, y+12, `text-anchor="end"`, length.String())
	d.Put("</svg>")
	_, err := io.WriteString(to, d.String())
	return err
}

// scaleOf returns the highest of the policies' peaks, or the second highest if the highest is
// an outlier: more than three times as high.
func scaleOf(all []Result, of func(Result) []float64) float64 {
	first, second := 0.0, 0.0
	for _, r := range all {
		switch p := peak(of(r)); {
		case p > first:
			first, second = p, first
		case p > second:
			second = p
		}
	}
	if first <= 3*second || second == 0 {
		return math.Max(first, 1)
	}
	return math.Max(second, 1)
}

func peak(values []float64) float64 {
	top := 1.0
	for _, v := range values {
		top = math.Max(top, v)
	}
	return top
}

// drawCurve draws values below the height y; each point is the maximum of its interval.
func drawCurve(d *chart.Drawing, values []float64, top, y float64, color string) {
	d.Line(plotLeft, y+panelHigh, plotWidth-plotRight, y+panelHigh, `stroke="#ddd"`)
	d.Text(plotLeft-4, y+9, `text-anchor="end" fill="#888"`, chart.Number(top))
	points := make([][2]float64, min(plotPoints, len(values)))
	for p := range points {
		from, to := p*len(values)/len(points), (p+1)*len(values)/len(points)
		v := 0.0
		for _, x := range values[from:to] {
			v = math.Max(v, x)
		}
		x := plotLeft + (plotWidth-plotLeft-plotRight)*(float64(p)+0.5)/float64(len(points))
		points[p] = [2]float64{x, y + panelHigh*(1-math.Min(v/top, 1))}
	}
	d.Polyline(points, fmt.Sprintf(`fill="none" stroke="%s"`, color))
}

// groupDigits formats a number with thousands separators.
func groupDigits(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
