package sim

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
	"time"
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
		arrivals[i] = float64(c.Trace.At(i)) / step.Seconds()
	}
	// An outlier must not flatten the others.
	backlogTop, instancesTop := scaleOf(all, func(r Result) []float64 { return r.Backlog }), scaleOf(all, func(r Result) []float64 { return r.Instances })
	panel := panelHead + 2*panelHigh + panelGap
	height := plotHead + panelHead + panelHigh + len(all)*(panel+panelGap) + plotFoot
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, height)
	text := func(x, y int, anchor, style, s string) {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="%s"%s>%s</text>`+"\n", x, y, anchor, style, html.EscapeString(s))
	}
	text(plotLeft, 20, "start", ` font-size="15" font-weight="bold"`, fmt.Sprintf("%s: %s messages in %v", c.Trace.Name, grouped(c.Trace.Messages()), time.Duration(c.Trace.Steps())*step))
	y := plotHead + panelHead
	text(plotLeft, y-6, "start", "", "arrivals a second")
	curve(&b, arrivals, peak(arrivals), y, "#666")
	y += panelHigh + panelGap
	for i, r := range all {
		head := fmt.Sprintf("%s: %s instance-seconds", r.Policy, grouped(int64(r.InstanceSeconds)))
		if i > 0 {
			head += fmt.Sprintf(", %.2f × clairvoyant; late %.2f%%, avoidably %.2f%%; p99 %v; %d turns",
				c.Cost(r), 100*r.LateShare(), 100*float64(c.Avoidable(r))/float64(max(r.Messages, 1)), r.P99, r.Turns)
		}
		y += panelHead
		text(plotLeft, y-6, "start", ` font-weight="bold"`, head)
		curve(&b, r.Backlog, backlogTop, y, "#c33")
		text(plotLeft-34, y+panelHigh/2, "end", ` fill="#c33"`, "waiting")
		y += panelHigh + panelGap
		curve(&b, r.Instances, instancesTop, y, "#27c")
		text(plotLeft-34, y+panelHigh/2, "end", ` fill="#27c"`, "instances")
		y += panelHigh + panelGap
	}
	length := time.Duration(c.Trace.Steps()) * step
	text(plotLeft, y+12, "start", "", "0")
	text(plotWidth-plotRight, y+12, "end", "", length.String())
	b.WriteString("</svg>\n")
	_, err := io.WriteString(to, b.String())
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

// curve draws values below the height y; each point is the maximum of its interval.
func curve(b *strings.Builder, values []float64, top float64, y int, color string) {
	fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="#ddd"/>`+"\n", plotLeft, plotWidth-plotRight, y+panelHigh, y+panelHigh)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" fill="#888">%s</text>`+"\n", plotLeft-4, y+9, short(top))
	points := min(plotPoints, len(values))
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" points="`, color)
	for p := range points {
		from, to := p*len(values)/points, (p+1)*len(values)/points
		v := 0.0
		for _, x := range values[from:to] {
			v = math.Max(v, x)
		}
		x := float64(plotLeft) + float64(plotWidth-plotLeft-plotRight)*(float64(p)+0.5)/float64(points)
		fmt.Fprintf(b, "%.1f,%.1f ", x, float64(y)+float64(panelHigh)*(1-math.Min(v/top, 1)))
	}
	b.WriteString(`"/>` + "\n")
}

// short formats a number with at most four digits.
func short(v float64) string {
	switch {
	case v >= 10e6:
		return fmt.Sprintf("%.0fM", v/1e6)
	case v >= 10e3:
		return fmt.Sprintf("%.0fk", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

// grouped formats a number with thousands separators.
func grouped(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
