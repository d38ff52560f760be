package daemon

import (
	"log/slog"
	"time"
)

// logStopped logs the outcomes of the messages that were in flight when a stop began. before is the status
// of the functions at that time.
func logStopped(d *Daemon, began time.Time, before []FunctionStatus) {
	d.completions.Flush()
	var was, is FunctionCounts
	for _, s := range before {
		addCounts(&was, s.FunctionCounts)
	}
	for _, s := range d.Status() {
		addCounts(&is, s.FunctionCounts)
	}
	var attrs []any
	for _, part := range []struct {
		name  string
		count int64
	}{
		{"done", is.Done - was.Done}, {"retried", is.Retried - was.Retried}, {"dead_lettered", is.Rejected - was.Rejected},
		{"released", is.Released - was.Released}, {"not_settled", is.Abandoned - was.Abandoned + is.InFlight},
	} {
		if part.count > 0 {
			attrs = append(attrs, slog.Int64(part.name, part.count))
		}
	}
	attrs = append(attrs, slog.Duration("took", time.Since(began).Round(time.Millisecond)))
	switch {
	case is.Abandoned > was.Abandoned, is.InFlight > 0:
		d.log.Warn("stopped; unsettled messages will be redelivered when their locks expire", attrs...)
	case is.Released > was.Released:
		d.log.Info("stopped; released messages will be redelivered without using an attempt", attrs...)
	case len(attrs) == 1:
		d.log.Info("stopped; nothing was in flight", attrs...)
	default:
		d.log.Info("stopped; all messages in flight are finished", attrs...)
	}
}

// addCounts adds the counts that logStopped compares.
func addCounts(sum *FunctionCounts, c FunctionCounts) {
	sum.Done += c.Done
	sum.Retried += c.Retried
	sum.Rejected += c.Rejected
	sum.Released += c.Released
	sum.Abandoned += c.Abandoned
	sum.InFlight += c.InFlight
}
