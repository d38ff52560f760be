package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
)

// table shows the progress of the functions: as a table that is redrawn on a terminal, or as a
// line for each function every two seconds.
type table struct {
	out   io.Writer
	live  bool
	every time.Duration
	drawn int // lines to draw over

	started time.Time
	shown   time.Time
	earlier map[string]api.FunctionStatus
}

func newTable(out io.Writer, live bool) *table {
	t := &table{
		out: out, live: live, every: 2 * time.Second,
		started: time.Now(), shown: time.Now(), earlier: make(map[string]api.FunctionStatus),
	}
	if t.live {
		t.every = 500 * time.Millisecond
	}
	return t
}

// row is a function's line, as texts.
type row struct {
	name, handler, kind, backlog, inFlight, rate, p50, p99, workers, failed string
}

// showIfDue draws if enough time has passed.
func (t *table) showIfDue(r *run) {
	now := time.Now()
	elapsed := now.Sub(t.shown)
	if elapsed < t.every {
		return
	}
	t.shown = now
	var rows []row
	for _, s := range r.daemon.Status() {
		next := t.newRow(r, s, elapsed)
		next.kind = r.daemon.Kind(s.Name).Words()
		rows = append(rows, next)
		t.earlier[s.Name] = s
	}
	if t.live {
		t.drawRows(rows, r.daemon.Apps(), now)
		return
	}
	for _, row := range rows {
		_, _ = fmt.Fprintf(t.out, "demo: %5.1f s  %-7s %s, backlog %s, in flight %s, done %s/s, p50 %s, p99 %s, workers %s, failed %s\n",
			now.Sub(t.started).Seconds(), row.name, row.kind, row.backlog, row.inFlight, row.rate, row.p50, row.p99, row.workers, row.failed)
	}
}

func (t *table) newRow(r *run, s api.FunctionStatus, elapsed time.Duration) row {
	earlier := t.earlier[s.Name]
	recent := s.Latency.Since(earlier.Latency)
	next := row{
		name: s.Name, handler: s.Handler,
		backlog:  "?",
		inFlight: fmt.Sprint(s.InFlight),
		rate:     fmt.Sprintf("%.0f", float64(s.Done-earlier.Done)/elapsed.Seconds()),
		p50:      term.ShortDuration(recent.Quantile(0.5)),
		p99:      term.ShortDuration(recent.Quantile(0.99)),
		workers:  "-",
		failed:   fmt.Sprint(s.Failed),
	}
	if s.Workers > 0 {
		next.workers = fmt.Sprint(s.Workers)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if b, err := r.daemon.Backlog(ctx, s.Name); err == nil {
		next.backlog = fmt.Sprint(b.Ready)
	}
	return next
}

func (t *table) drawRows(rows []row, apps []api.AppOverview, now time.Time) {
	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", t.drawn)
	}
	fmt.Fprintf(&b, "drover demo, %.0f s\n", now.Sub(t.started).Seconds())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "function\thandler\tkind\tbacklog\tin flight\tdone/s\tp50\tp99\tworkers\tfailed\t")
	for _, r := range rows {
		_, _ = fmt.Fprintln(w, strings.Join([]string{r.name, r.handler, r.kind, r.backlog, r.inFlight, r.rate, r.p50, r.p99, r.workers, r.failed}, "\t")+"\t")
	}
	_ = w.Flush()
	for _, a := range apps {
		fmt.Fprintln(&b, statustext.AppText(a))
	}
	t.drawn = len(rows) + 2 + len(apps)
	_, _ = io.WriteString(t.out, b.String())
}

// leaveTable leaves the last table on the terminal.
func (t *table) leaveTable() { t.drawn = 0 }
