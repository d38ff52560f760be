package status

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

const (
	// writeTimeout bounds the time that a client may take to read a write.
	writeTimeout = 10 * time.Second
	// pingEvery is the time between empty lines to a client, which detect that the client is gone.
	pingEvery = 15 * time.Second
)

// handleLog sends lines of the log of a function, one JSON object a line.
func (v *View) handleLog(w http.ResponseWriter, r *http.Request) {
	t, err := api.ParseLogRequest(r.PathValue("name"), r.URL.Query())
	if err != nil {
		admin.WriteError(w, http.StatusBadRequest, "%v", err)
		return
	}
	if !slices.Contains(v.functionNames(), t.Function) {
		admin.WriteNotFound(w, t.Function, v.functionNames())
		return
	}
	f, before := v.Logs.Subscribe(t.Function, t.Level, t.Last)
	if f == nil {
		admin.WriteError(w, http.StatusServiceUnavailable, "%d clients follow logs already, the maximum", telemetry.MaxSubscribers)
		return
	}
	defer v.Logs.Unsubscribe(f)
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Cache-Control", "no-store")
	out := &lineWriter{w: w, control: http.NewResponseController(w)}
	ctx, cancel := context.WithCancel(r.Context())
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	if v.Fleet() != nil {
		logs := newInstanceLogs(v, t)
		before = logs.readBefore(ctx, before)
		if t.Follow {
			reading.Go(func() { logs.followAll(ctx, f) })
		}
	}
	if out.writeLines(before...) && t.Follow {
		out.writeUntil(ctx, f, v.Logs.SubscribersClosed())
	}
}

// lineWriter writes lines to a client.
type lineWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// writeUntil writes the lines of a subscription until ctx ends or the client is gone. When over is
// closed, it writes the lines received before, and returns.
func (o *lineWriter) writeUntil(ctx context.Context, f *telemetry.Subscription, over <-chan struct{}) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case line := <-f.Lines():
			if !o.writeLines(line) {
				return
			}
		case <-tick.C:
			if !o.writeLines() {
				return
			}
		case <-ctx.Done():
			return
		case <-over:
			for { // the remaining lines
				select {
				case line := <-f.Lines():
					if !o.writeLines(line) {
						return
					}
				default:
					return
				}
			}
		}
	}
}

// writeLines writes lines, or an empty one if there are none. It reports whether the client
// still reads.
func (o *lineWriter) writeLines(lines ...telemetry.LogLine) bool {
	var text []byte
	for _, line := range lines {
		one, err := json.Marshal(line)
		if err != nil { // a number that JSON cannot represent
			one, _ = json.Marshal(telemetry.LogLine{Time: line.Time, Level: line.Level, Text: line.Text, Dropped: line.Dropped}) // without attributes it cannot fail
		}
		text = append(append(text, one...), '\n')
	}
	if len(lines) == 0 {
		text = []byte{'\n'}
	}
	_ = o.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // never fails for a connection
	if _, err := o.w.Write(text); err != nil {
		return false
	}
	return o.control.Flush() == nil
}
