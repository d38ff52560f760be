package driver

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

// observeFrame checks a frame that is allowed at any time, and adds it to Received. It returns
// false for other frames.
func observeFrame(w *Worker, kind protocol.Kind, payload []byte) bool {
	switch kind {
	case protocol.Log:
		observeLog(w, payload)
	case protocol.Stats:
		observeStats(w, payload)
	case protocol.Alive:
		observeAlive(w, payload)
	case protocol.Imported:
		observeImported(w, payload)
	default:
		return false
	}
	return true
}

var levels = []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}

func observeLog(w *Worker, payload []byte) {
	var line protocol.LogFrame
	switch err := protocol.DecodeFrame(protocol.Log, payload, &line); {
	case err != nil:
		w.FailBy(RuleLogTo, err.Error(), "a LOG with id, level, logger and text")
	case w.Welcome == nil:
		w.FailBy(RuleLogTo, "a LOG before WELCOME", "none")
	case !slices.Contains(w.Announced, protocol.CanLog):
		w.FailBy(RuleLog, "a LOG, though HELLO did not have the capability log", "none")
	case !slices.Contains(levels, line.Level):
		w.FailBy(RuleLogTo, fmt.Sprintf("a LOG of level %q", line.Level), "one of "+strings.Join(levels, ", "))
	case line.ID != -1 && !w.calls.has(line.ID):
		w.FailBy(RuleLogIDs, fmt.Sprintf("a LOG of %d, which is not in flight: %q", line.ID, Excerpt([]byte(line.Text))), "-1, or the id of a call that has no RESULT yet")
	}
	w.Logs = append(w.Logs, line)
}

func observeStats(w *Worker, payload []byte) {
	var stats protocol.StatsFrame
	switch err := protocol.DecodeFrame(protocol.Stats, payload, &stats); {
	case err != nil:
		w.FailBy(RuleStats, err.Error(), "a STATS with period_us and lags_us")
	case w.Ready == nil:
		w.FailBy(RuleStats, "a STATS before READY", "none")
	case !slices.Contains(w.Announced, protocol.CanStats):
		w.FailBy(RuleLog, "a STATS, though HELLO did not have the capability stats", "none")
	case len(stats.GIL)+len(stats.Delays) > 0 && stats.Period == 0 && len(stats.Lags) == 0:
		return // of calls, not of the event loop
	case stats.Period <= 0 || slices.ContainsFunc(stats.Lags, func(us int64) bool { return us < 0 }):
		w.FailBy(RuleStats, "STATS of "+Excerpt(payload), "a period above 0, and lags of 0 and more")
	}
	w.Stats = append(w.Stats, stats)
}

func observeAlive(w *Worker, payload []byte) {
	switch {
	case w.Ready == nil:
		w.FailBy(RuleAlive, "an ALIVE before READY", "none")
	case !slices.Contains(w.Announced, protocol.CanHeartbeat):
		w.FailBy(RuleLog, "an ALIVE, though HELLO did not have the capability heartbeat", "none")
	case len(payload) > 0:
		w.FailBy(RuleAlive, fmt.Sprintf("an ALIVE with %d bytes", len(payload)), "no payload")
	}
	w.Beats++
}

func observeImported(w *Worker, payload []byte) {
	var frame protocol.ImportedFrame
	err := protocol.DecodeFrame(protocol.Imported, payload, &frame)
	switch {
	case err != nil:
		w.FailBy(RuleImport, err.Error(), "an IMPORTED with paths")
	case w.Welcome == nil:
		w.FailBy(RuleImport, "an IMPORTED before WELCOME", "none")
	case !slices.Contains(w.Announced, protocol.CanImports):
		w.FailBy(RuleLog, "an IMPORTED, though HELLO did not have the capability imports", "none")
	case slices.ContainsFunc(frame.Paths, func(path string) bool { return !filepath.IsAbs(path) }):
		w.FailBy(RuleImport, "an IMPORTED of "+Excerpt(payload), "absolute paths")
	}
	w.Imports = append(append([]string{}, w.Imports...), frame.Paths...)
}
