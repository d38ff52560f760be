package tune

import (
	"fmt"
	"math"
)

// This file says how far measurements can be trusted: the confidence interval of a cell, and the use
// of the machine by others.

// studentT has the quantiles of Student's t distribution for a confidence of 95 % on both sides, by
// the degrees of freedom, from 1 on. Beyond them it is about manyT.
var studentT = []float64{12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20}

const (
	manyT = 2.1
	// leastRates is the number of rates from which on an interval means something.
	leastRates = 3
	// MostOthers is the part of the cores that others may use in a run whose results are kept.
	MostOthers = 0.2
)

// Margin returns the half of the 95 % confidence interval of the throughput; 0 if too few parts were
// measured.
func (c *Cell) Margin() float64 {
	n := len(c.Rates)
	if n < leastRates {
		return 0
	}
	var mean, squares float64
	for i, rate := range c.Rates {
		off := rate - mean
		mean += off / float64(i+1)
		squares += off * (rate - mean)
	}
	t := manyT
	if n-2 < len(studentT) {
		t = studentT[n-2]
	}
	return t * math.Sqrt(squares/float64(n-1)/float64(n))
}

// marginText returns the interval of a cell relative to its throughput.
func (c *Cell) marginText() string {
	if c.Margin() == 0 || c.Throughput == 0 {
		return "-"
	}
	return fmt.Sprintf("±%.0f %%", math.Ceil(100*c.Margin()/c.Throughput))
}

// AddRound adds the measurements of another round, except for the latencies.
func (c *Cell) AddRound(o Cell) {
	if o.Problem != "" {
		c.Problem = o.Problem
		return
	}
	all := c.Seconds + o.Seconds
	mean := func(a, b float64) float64 { return (a*c.Seconds + b*o.Seconds) / math.Max(all, 1e-9) }
	c.Throughput, c.CPU = mean(c.Throughput, o.Throughput), mean(c.CPU, o.CPU)
	c.Calls, c.Failed = c.Calls+o.Calls, c.Failed+o.Failed
	c.Rates = append(c.Rates, o.Rates...)
	c.Unsettled = c.Unsettled || o.Unsettled
	c.Seconds = all // the memory of the first round has less left over from other settings
}

// countAsGood returns how many cells may be as good as the best, by their intervals.
func (r *Report) countAsGood() (n int) {
	least := r.Best.Throughput - r.Best.Margin()
	for i := range r.Cells {
		c := &r.Cells[i]
		if c.Problem == "" && c.Settings != r.Best.Settings && c.Margin() > 0 && c.Throughput+c.Margin() >= least {
			n++
		}
	}
	return n
}

// WhyNotKept returns why the numbers must not be written; empty if they may be.
func (r *Report) WhyNotKept() string {
	if r.Others <= MostOthers*float64(r.Cores) {
		return ""
	}
	return fmt.Sprintf("other programs used %.1f of %d cores during the run, more than a fifth", r.Others, r.Cores)
}
