package measure

import (
	"bytes"
	"time"

	"github.com/drover-run/drover/daemon/cli/tune"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// This file combines the rounds of a run: a program that disturbs one round disturbs all cells.

const (
	// A measurement has up to mostParts parts, with time for callsPerPart calls, one after another, in
	// each. Their rates show how much the machine disturbs them.
	mostParts    = 4
	callsPerPart = 4
)

// countParts returns the number of parts of a measurement.
func (t *gridRun) countParts(length time.Duration) int {
	return int(min(max(length/max(callsPerPart*t.baseline.Call, 1), 1), mostParts))
}

// cellOf returns the cell of the report with the settings; nil if there is none.
func (t *gridRun) cellOf(s tune.Settings) *tune.Cell {
	for i := range t.Report.Cells {
		if t.Report.Cells[i].Settings == s {
			return &t.Report.Cells[i]
		}
	}
	return nil
}

// hasProblem reports whether an earlier round could not measure the settings.
func (t *gridRun) hasProblem(s tune.Settings) bool {
	c := t.cellOf(s)
	return c != nil && c.Problem != ""
}

// addRound adds the measurements of a round to the report.
func (t *gridRun) addRound(c tune.Cell, took *telemetry.Latencies) {
	all := t.cellOf(c.Settings)
	if all == nil {
		t.Report.Cells, t.latencies[c.Settings] = append(t.Report.Cells, c), took
		return
	}
	all.AddRound(c)
	took = t.latencies[c.Settings].Plus(took)
	t.latencies[c.Settings] = took
	all.P50, all.P99 = took.Quantile(0.5).Seconds(), took.Quantile(0.99).Seconds()
}

// checkMessages notes that the messages do not show what others need.
func (t *gridRun) checkMessages() {
	for _, m := range t.Messages[1:] {
		if !bytes.Equal(m.Body, t.Messages[0].Body) {
			return
		}
	}
	what := "all messages have the same body"
	if len(t.Messages) == 1 {
		what = "there is only one message"
	}
	t.addNote("%s: others may take longer, and need other settings; use messages of a typical day, as drover capture copies them", what)
}
