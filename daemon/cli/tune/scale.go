package tune

import (
	"math"
	"slices"
)

// values are those that a number has in cells, in order.
func values(cells []Cell, d dimension) (out []int) {
	for i := range cells {
		if v := d.of(cells[i].Settings); !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// scale returns what makes of a value its place between the least, 0, and the most, 1, of all
// cells. What grows from nothing is measured from there.
func (r *Report) scale(m metric) func(float64) float64 {
	least, most := math.Inf(1), 0.0
	for i := range r.Cells {
		if c := &r.Cells[i]; c.Problem == "" && m.of(c) > 0 {
			least, most = min(least, m.of(c)), max(most, m.of(c))
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
