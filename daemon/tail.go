package daemon

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// This file lets a function's log lines be followed over the admin server: one JSON
// object a line. A daemon of several instances passes on what theirs are.

const (
	// writePatience is how long a reader may take for what was written to it.
	writePatience = 10 * time.Second
	// stillThere is how often one who hears nothing is written an empty line, so that
	// one that is gone is found out.
	stillThere = 15 * time.Second
)

func logRoutes(d *Daemon) []admin.Route {
	return []admin.Route{{
		ID: "followLog", Method: http.MethodGet, Path: api.LogPattern, Help: "Follow the log of a function: one JSON object per line, and an empty line now and then.",
		Params: []admin.Param{
			functionParam,
			{Name: "level", Help: "lowest level: debug, info, warn or error; info by default"},
			{Name: "last", Help: "number of earlier lines to start with; 10 by default", Number: true},
			{Name: "follow", Help: "true, or false for earlier lines only"},
		},
		Answer: LogLine{}, ContentType: "application/jsonl", Handler: d.answerTail,
		ErrorStatuses: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusServiceUnavailable},
	}}
}

func (d *Daemon) answerTail(w http.ResponseWriter, r *http.Request) {
	t, err := api.ParseLogRequest(r.PathValue("name"), r.URL.Query())
	if err != nil {
		admin.Refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	if !d.knows(t.Function) {
		admin.RefuseUnknown(w, t.Function, d.names())
		return
	}
	f, before := d.logs.Subscribe(t.Function, t.Level, t.Last)
	if f == nil {
		admin.Refuse(w, http.StatusServiceUnavailable, "%d follow logs already; that is the most", telemetry.MaxSubscribers)
		return
	}
	defer d.logs.Unsubscribe(f)
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Cache-Control", "no-store")
	out := &lineWriter{w: w, control: http.NewResponseController(w)}
	ctx, cancel := context.WithCancel(r.Context())
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	if d.instances() != nil {
		instances := d.instanceLines(t)
		before = instances.before(ctx, before)
		if t.Follow {
			reading.Go(func() { instances.follow(ctx, f) })
		}
	}
	if out.write(before...) && t.Follow {
		out.follow(ctx, f, d.logs.Closed())
	}
}

// lineWriter writes lines to one who reads them.
type lineWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// follow writes what a follower is given until ctx ends, or all is over.
func (o *lineWriter) follow(ctx context.Context, f *telemetry.Subscription, over <-chan struct{}) {
	tick := time.NewTicker(stillThere)
	defer tick.Stop()
	for {
		select {
		case line := <-f.Lines():
			if !o.write(line) {
				return
			}
		case <-tick.C:
			if !o.write() {
				return
			}
		case <-ctx.Done():
			return
		case <-over:
			for { // what came before the end
				select {
				case line := <-f.Lines():
					if !o.write(line) {
						return
					}
				default:
					return
				}
			}
		}
	}
}

// write writes lines, or an empty one, and reports whether the reader is still there.
func (o *lineWriter) write(lines ...LogLine) bool {
	var text []byte
	for _, line := range lines {
		one, err := json.Marshal(line)
		if err != nil { // a number that JSON does not have
			one, _ = json.Marshal(LogLine{Time: line.Time, Level: line.Level, Text: line.Text, Dropped: line.Dropped}) // has none
		}
		text = append(append(text, one...), '\n')
	}
	if len(lines) == 0 {
		text = []byte{'\n'}
	}
	_ = o.control.SetWriteDeadline(time.Now().Add(writePatience)) // a connection always can
	if _, err := o.w.Write(text); err != nil {
		return false
	}
	return o.control.Flush() == nil
}

// knows reports whether there is a function of that name.
func (d *Daemon) knows(function string) bool { return slices.Contains(d.names(), function) }

// names are those of the functions.
func (d *Daemon) names() []string { return slices.Sorted(maps.Keys(d.config().Functions)) }
