package demo

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
)

// table shows the progress of the functions: in a table in a frame, or in a line per function
// every two seconds.
type table struct {
	out     io.Writer
	frame   *live.Frame // nil without a terminal
	palette term.Palette
	every   time.Duration
	widths  map[string]int

	started time.Time
	shown   time.Time
	last    api.StatusReport
}

func newTable(o Options) *table {
	t := &table{
		out: o.Out, frame: o.Frame, palette: o.Palette, every: 2 * time.Second, widths: make(map[string]int),
		started: time.Now(), shown: time.Now(),
	}
	if t.frame != nil {
		t.every = 500 * time.Millisecond
	}
	return t
}

// showIfDue draws if enough time has passed.
func (t *table) showIfDue(r *run, feeding bool) {
	now := time.Now()
	elapsed := now.Sub(t.shown)
	if elapsed < t.every {
		return
	}
	t.shown = now
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	report := r.daemon.Report(ctx)
	status := statustext.Status{Now: report, Last: t.last, Every: elapsed, Palette: t.palette, Widths: t.widths}
	t.last = report
	status.Now.Advice = nil // for the code of users
	if t.frame == nil {
		for _, line := range status.PlainLines() {
			_, _ = fmt.Fprintf(t.out, "demo: %5.1f s  %s\n", now.Sub(t.started).Seconds(), line)
		}
		return
	}
	doing := "sending"
	if !feeding {
		doing = "finishing the messages sent"
	}
	var sent int64
	for _, n := range r.sent {
		sent += n
	}
	head := fmt.Sprintf("drover demo  %.0f s, %s, %d messages sent", now.Sub(t.started).Seconds(), doing, sent)
	t.frame.Show(func(columns, rows int) []string {
		functions := status.Table()
		lines := append([]string{t.palette.Apply(term.Bold, term.Truncate(head, columns))}, functions.Lines(columns, t.palette)...)
		return live.CutLines(append(lines, status.Notes(columns)...), rows)
	})
}

// leaveTable leaves the last table on the terminal: later lines follow it.
func (t *table) leaveTable() {
	if t.frame != nil {
		_ = t.frame.Close() // the terminal may be gone
	}
}
