package sim

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Trace has arrivals over time.
type Trace struct {
	Name string
	// Each is the interval of one count; Counts are the messages that arrived in each.
	Each   time.Duration
	Counts []int64
	// Model is the model for the trace, unless the user sets another.
	Model Model
}

// Steps returns the length of the trace, in steps of the simulation.
func (t Trace) Steps() int { return len(t.Counts) * int(t.Each/step) }

// ArrivalsAt returns the number of messages that arrive in a step. Those of one count are spread
// evenly.
func (t Trace) ArrivalsAt(i int) int64 {
	each := int64(t.Each / step)
	count, part := t.Counts[int64(i)/each], int64(i)%each
	return count*(part+1)/each - count*part/each
}

// Messages returns the total number of messages.
func (t Trace) Messages() (n int64) {
	for _, c := range t.Counts {
		n += c
	}
	return n
}

const (
	// maxRows bounds the lines of a trace file: 400 days of minutes, or six days of seconds.
	maxRows = 600_000
	// maxSteps bounds the length of a trace: a year.
	maxSteps = 366 * 24 * 3600
	// maxCount bounds one count.
	maxCount = 1_000_000_000
)

// ReadCSV reads a trace: a first line `time,arrivals`, then one line for each interval: its
// start, in seconds or in RFC 3339, and the number of messages that arrived in it. All
// intervals have the same length, without gaps. An error names the line.
func ReadCSV(name string, from io.Reader) (Trace, error) {
	r := csv.NewReader(from)
	r.FieldsPerRecord = 2
	r.ReuseRecord = true
	r.TrimLeadingSpace = true
	head, err := r.Read()
	if errors.Is(err, io.EOF) {
		return Trace{}, errors.New("it is empty; a first line `time,arrivals` is needed, and then a line for each stretch of time")
	}
	if err != nil {
		return Trace{}, fmt.Errorf("reading a trace: %w", err)
	}
	if !strings.EqualFold(head[0], "time") || !strings.EqualFold(head[1], "arrivals") {
		return Trace{}, fmt.Errorf("line 1 is %q; it must be \"time,arrivals\"", strings.Join(head, ","))
	}
	t := Trace{Name: name}
	var last time.Duration
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Trace{}, fmt.Errorf("reading a trace: %w", err)
		}
		line, _ := r.FieldPos(0)
		at, err := readTime(row[0])
		if err != nil {
			return Trace{}, fmt.Errorf("line %d: %w", line, err)
		}
		count, err := strconv.ParseFloat(row[1], 64)
		if err != nil || !(count >= 0 && count <= maxCount) || count != math.Trunc(count) {
			return Trace{}, fmt.Errorf("line %d: arrivals are %q; a whole number from 0 to %d is needed", line, row[1], maxCount)
		}
		switch n := len(t.Counts); {
		case n == 1:
			t.Each = at - last
			if t.Each < step || t.Each%step != 0 {
				return Trace{}, fmt.Errorf("line %d is %v after the line before it; whole seconds, at least 1, are needed", line, t.Each)
			}
		case n > 1 && at-last != t.Each:
			return Trace{}, fmt.Errorf("line %d is %v after the line before it, where the lines before are %v apart; fill a gap with lines of 0 arrivals", line, at-last, t.Each)
		case n == maxRows:
			return Trace{}, fmt.Errorf("line %d: more than %d lines", line, maxRows)
		}
		last = at
		t.Counts = append(t.Counts, int64(count))
	}
	if len(t.Counts) < 2 {
		return Trace{}, errors.New("it has fewer than two stretches of time; nothing can be seen in it")
	}
	if t.Steps() > maxSteps {
		return Trace{}, fmt.Errorf("it is longer than a year (%v)", time.Duration(t.Steps())*step)
	}
	return t, nil
}

func readTime(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(seconds) < 1e11 {
		return time.Duration(math.Round(seconds*1000)) * time.Millisecond, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, fmt.Errorf("the time is %q; seconds, such as 60, or a time such as 2026-01-31T08:00:00Z is needed", text)
	}
	return time.Duration(at.UnixMilli()) * time.Millisecond, nil
}

// WriteCSV writes a trace in the format of ReadCSV.
func (t Trace) WriteCSV(to io.Writer) error {
	w := csv.NewWriter(to)
	_ = w.Write([]string{"time", "arrivals"}) // w.Error returns the error
	for i, c := range t.Counts {
		_ = w.Write([]string{strconv.Itoa(i * int(t.Each/time.Second)), strconv.FormatInt(c, 10)})
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return fmt.Errorf("writing a trace: %w", err)
	}
	return nil
}

// poisson returns a random number with a Poisson distribution.
func poisson(random *rand.Rand, mean float64) int64 {
	if mean <= 0 {
		return 0
	}
	if mean > 50 {
		return int64(math.Max(math.Round(mean+math.Sqrt(mean)*random.NormFloat64()), 0))
	}
	limit, n := math.Exp(-mean), int64(0)
	for p := random.Float64(); p > limit; p *= random.Float64() {
		n++
	}
	return n
}
