package workloads

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// settled is the time by which auto must have found the best setting, in seconds.
const settled = 30

// window is the time that a rate must last to count as reached, in seconds.
const window = 2

// stage is a workload while it is of one kind: nearly all are for all their time.
type stage struct {
	Mode  string `json:"mode"`
	Cells []cell `json:"cells,omitempty"` // the best first
	Best  cell   `json:"best"`

	From float64 `json:"from"` // seconds of auto's track
	To   float64 `json:"to"`
	// Reached is the time until auto reached 0.9 of the best cell, in seconds; negative if never.
	Reached float64 `json:"reached"`
	// Ratio is auto's rate after it had settled, divided by that of the best cell.
	Ratio float64 `json:"ratio"`
}

// report is all of a workload.
type report struct {
	workload
	For    time.Duration `json:"for"`
	Cores  int           `json:"cores"`
	Stages []stage       `json:"stages"`
	Auto   *track        `json:"auto"`
	Azure  *cell         `json:"azure,omitempty"`
	// VsAzure is what auto did once it had settled, in terms of the Azure defaults.
	VsAzure float64 `json:"vs_azure,omitempty"`
}

// level is the stage of a mode that was there before.
func (r *report) level(mode rune) *stage {
	for i := range r.Stages {
		if r.Stages[i].Mode == string(mode) {
			again := r.Stages[i]
			again.Cells = nil
			return &again
		}
	}
	return nil
}

// judge works out the figures.
func (r *report) judge() {
	bounds := append(append([]float64{0}, r.Auto.Flips...), r.Auto.end())
	for i := range r.Stages {
		l := &r.Stages[i]
		l.From, l.To = bounds[i], bounds[i+1]
		l.Reached = r.Auto.reaches(0.9*l.Best.Rate, l.From, l.To)
		from := l.From + min(settled, (l.To-l.From)/2)
		l.Ratio = r.Auto.rate(from, l.To) / l.Best.Rate
		if i == 0 && r.Azure != nil {
			r.VsAzure = r.Auto.rate(from, l.To) / r.Azure.Rate
		}
	}
}

// reaches is after how many seconds a rate was first had over a window; negative is never.
func (t *track) reaches(rate, from, to float64) float64 {
	for _, p := range t.Points {
		if p.At >= from && p.At+window <= to && t.rate(p.At, p.At+window) >= rate {
			return p.At - from
		}
	}
	return -1
}

// line is the report in short.
func (r *report) line() string {
	var parts []string
	for _, l := range r.Stages {
		name := ""
		if l.Mode != "-" {
			name = l.Mode + ": "
		}
		parts = append(parts, fmt.Sprintf("%sbest %v %.1f/s, auto ÷ best %.2f, 0.9 after %s", name, l.Best.Settings, l.Best.Rate, l.Ratio, after(l.Reached)))
	}
	if r.Azure != nil {
		parts = append(parts, fmt.Sprintf("auto ÷ Azure's defaults %.1f", r.VsAzure))
	}
	return r.Name + ": " + strings.Join(parts, "; ")
}

func after(seconds float64) string {
	if seconds < 0 {
		return "never"
	}
	return fmt.Sprintf("%.0f s", seconds)
}

// printReports prints the table of docs/performance.md.
func printReports(to io.Writer, reports []*report) error {
	w := tabwriter.NewWriter(to, 0, 0, 1, ' ', tabwriter.AlignRight|tabwriter.Debug)
	fmt.Fprintln(w, "| workload\t best cell\t its messages/s\t auto after 30 s ÷ best\t 0.9 of it after\t auto ÷ Azure's defaults\t")
	fmt.Fprintln(w, "| ---\t ---:\t ---:\t ---:\t ---:\t ---:\t")
	for _, r := range reports {
		for i, l := range r.Stages {
			name, azure := r.Name, ""
			if len(r.Stages) > 1 {
				name = fmt.Sprintf("%s, part %d", r.Name, i+1)
			}
			if r.Azure != nil && i == 0 {
				azure = fmt.Sprintf("%.1f", r.VsAzure)
			}
			fmt.Fprintf(w, "| %s\t %v\t %.1f\t %.2f\t %s\t %s\t\n", name, l.Best.Settings, l.Best.Rate, l.Ratio, after(l.Reached), azure)
		}
	}
	return w.Flush()
}
