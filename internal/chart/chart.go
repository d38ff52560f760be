// Package chart has what the SVG charts of the simulator, of tuning and of the benchmarks share:
// shapes, texts that are escaped, the scale of an axis, and short numbers. Coordinates are pixels.
// A Drawing is for one goroutine. Writing to it does not fail.
package chart

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Drawing collects the elements of an SVG. The zero value is empty.
type Drawing struct{ strings.Builder }

// Put adds markup. Arguments that are strings are escaped, the format is not.
func (d *Drawing) Put(format string, args ...any) {
	for i, a := range args {
		if text, ok := a.(string); ok {
			args[i] = html.EscapeString(text)
		}
	}
	_, _ = fmt.Fprintf(d, format+"\n", args...)
}

// Text adds a text, which is escaped, and whose baseline starts at x, y, unless the attributes say otherwise.
func (d *Drawing) Text(x, y float64, attributes, text string) {
	_, _ = fmt.Fprintf(d, `<text x="%.1f" y="%.1f" %s>%s</text>`+"\n", x, y, attributes, html.EscapeString(text))
}

// Line adds a straight line.
func (d *Drawing) Line(x1, y1, x2, y2 float64, attributes string) {
	_, _ = fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x1, y1, x2, y2, attributes)
}

// Polyline adds a line through all points.
func (d *Drawing) Polyline(points [][2]float64, attributes string) {
	_, _ = fmt.Fprintf(d, `<polyline %s points="%s"/>`+"\n", attributes, Points(points))
}

// Points returns points as the attribute of a polyline or a polygon.
func Points(points [][2]float64) string {
	var out strings.Builder
	for i, p := range points {
		if i > 0 {
			out.WriteByte(' ')
		}
		_, _ = fmt.Fprintf(&out, "%.1f,%.1f", p[0], p[1])
	}
	return out.String()
}

// Scale returns the end of an axis from 0 that holds values up to most, and the distance of its
// ticks. There are at most five ticks above 0.
func Scale(most float64) (end, tick float64) {
	tick = Tick(most / 4)
	return max(math.Ceil(most/tick)*tick, tick), tick
}

// Tick returns the smallest of 1, 2 and 5 times a power of ten that is at least v, or 1 if v is
// not positive.
func Tick(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= v {
			return m * power
		}
	}
	return 10 * power
}

// Number formats a number of at most four digits, or of three and a unit: 17.5k, 2M.
func Number(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case v >= 10e3:
		return fmt.Sprintf("%.3gk", v/1e3)
	}
	return fmt.Sprintf("%.4g", v)
}
