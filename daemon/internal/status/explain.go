package status

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/triggers"
)

// handleExplain explains the function of that name, or else the message of that ID.
func (v *View) handleExplain(w http.ResponseWriter, r *http.Request) {
	about, as := r.URL.Query().Get("about"), r.URL.Query().Get("as")
	if about == "" || !slices.Contains([]string{"", "function", "message"}, as) {
		admin.WriteError(w, http.StatusBadRequest, "about must be the name of a function, or a message ID; as must be function or message, if about is ambiguous")
		return
	}
	known := slices.Contains(v.functionNames(), about)
	if as == "" && known {
		as = "function"
	}
	if as == "function" {
		if !known {
			admin.WriteNotFound(w, about, v.functionNames())
			return
		}
		admin.WriteJSON(w, http.StatusOK, api.Explanations{Explanations: v.explainFunction(r.Context(), about)})
		return
	}
	admin.WriteJSON(w, http.StatusOK, api.Explanations{Explanations: v.explainMessage(r.Context(), about)})
}

// explainMessage explains where a message is: in this daemon, or else as its source reports it.
func (v *View) explainMessage(ctx context.Context, id string) []api.Explanation {
	var out []api.Explanation
	for _, f := range v.Running() {
		if e, found := ExplainInFlight(f, id, time.Now()); found {
			out = append(out, e)
		} else if e, found := explainFailure(ctx, f, id, time.Now()); found {
			out = append(out, e)
		}
	}
	if v.Fleet() != nil {
		out = append(out, v.queryInstances(ctx, id, "message")...)
	}
	if len(out) > 0 {
		return out
	}
	text := "it is not in flight, has not failed recently, and no source lists it. It was completed, dead-lettered, or never sent"
	if v.Phase() == api.PhaseStarting {
		text = "the daemon is starting"
	}
	return ExplainAtSources(ctx, v.functionNames(), v.findSource, id, text)
}

// ExplainAtSources explains a message as the sources of functions list it. If none does, its text
// is unknown.
func ExplainAtSources(ctx context.Context, functions []string, source func(function string) triggers.Trigger, id, unknown string) (out []api.Explanation) {
	var notes []string
	for _, name := range functions {
		e, err := explainAtSource(ctx, name, source(name), id)
		switch {
		case err == nil:
			out = append(out, e)
		case !errors.Is(err, triggers.ErrNotFound):
			notes = append(notes, fmt.Sprintf("the source of %s: %v", name, err))
		}
	}
	if len(out) == 0 {
		out = []api.Explanation{{Message: id, State: api.StateUnknown, Text: unknown, Notes: notes}}
	}
	return out
}

// findSource returns the trigger of a function; nil before it is open.
func (v *View) findSource(name string) triggers.Trigger {
	for _, f := range v.Running() {
		if f.Name == name {
			return f.Trigger
		}
	}
	if fleet := v.Fleet(); fleet != nil {
		return fleet.SourceOf(name)
	}
	return nil
}

// ExplainInFlight explains a message that is in flight in this process.
func ExplainInFlight(f *apps.Function, id string, now time.Time) (e api.Explanation, found bool) {
	x, found := f.FindInFlight(id)
	if !found {
		return e, false
	}
	e = api.Explanation{Function: f.Name, Message: id, State: "in_flight"}
	if x.Blocked != "" {
		e.State, e.Text = "stuck", fmt.Sprintf("it was handled %v ago, but cannot be settled: %s", now.Sub(x.BlockedSince).Round(time.Second), x.Blocked)
		return e, true
	}
	since := now.Sub(x.Received).Round(time.Millisecond)
	if x.Started.IsZero() {
		e.Text = fmt.Sprintf("it was received %v ago, and waits for a slot: other messages use all of them", since)
		return e, true
	}
	handled := now.Sub(x.Started).Round(time.Millisecond)
	e.Text = fmt.Sprintf("it is being handled for %v", handled)
	if f.Pool != nil {
		if pid := workerOf(f, x.Message); pid > 0 {
			e.Text += fmt.Sprintf(", in worker %d", pid)
		} else {
			e.Text = fmt.Sprintf("it was dispatched %v ago, and no worker runs it: it waits for a worker, for its result to be sent, or for its source to accept the verdict", handled)
		}
	}
	if left := x.Started.Add(f.Timeout).Sub(now); left > 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("the attempt times out in %v", left.Round(time.Second)))
	} else {
		e.Notes = append(e.Notes, fmt.Sprintf("its timeout ended %v ago", -left.Round(time.Second)))
	}
	e.Notes = append(e.Notes, fmt.Sprintf("this is attempt %d of %d", x.Message.Attempt, f.Retry.MaxAttempts))
	if x.Lost {
		e.Notes = append(e.Notes, "its source took it back: it runs again elsewhere")
	}
	if b, failed := f.LatestFailure(id); failed && b.Enqueued.Equal(x.Message.Enqueued) {
		e.Notes = append(e.Notes, fmt.Sprintf("attempt %d failed: %s", b.Attempt, b.Error))
	}
	return e, true
}

// workerOf returns the process that has a message; 0 if none has it.
func workerOf(f *apps.Function, m *triggers.Message) int {
	for _, i := range f.Pool.InvocationsOf(f.Name) {
		if i.Message.ID == m.ID { // the message may have been copied, for a trace
			return i.Worker
		}
	}
	return 0
}

// explainFailure explains a message that waits for its retry, or was rejected here recently.
func explainFailure(ctx context.Context, f *apps.Function, id string, now time.Time) (e api.Explanation, found bool) {
	b, failed := f.LatestFailure(id)
	switch {
	case !failed || !b.Rejected && !b.Until.After(now) || b.Rejected && isReusedID(ctx, f, id, b):
		return e, false
	case b.Rejected:
		e = api.Explanation{Function: f.Name, Message: id, State: "dead", Text: fmt.Sprintf("it was moved to the dead letters %v ago, at attempt %d", now.Sub(b.At).Round(time.Second), b.Attempt)}
	default:
		e = api.Explanation{Function: f.Name, Message: id, State: "retry", Text: fmt.Sprintf("attempt %d of %d failed, and the next is due in %v, at %s",
			b.Attempt, f.Retry.MaxAttempts, b.Until.Sub(now).Round(time.Millisecond), b.Until.Local().Format(time.TimeOnly))}
	}
	e.Notes = []string{"the error: " + b.Error}
	if b.Detail != "" {
		e.Notes = append(e.Notes, b.Detail)
	}
	return e, true
}

// isReusedID reports whether another message has the ID of one that failed: its source was recreated
// since, and counts from 1 again.
func isReusedID(ctx context.Context, f *apps.Function, id string, b dispatch.RecentFailure) bool {
	finder, ok := f.Trigger.(triggers.Finder)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, autoscale.BacklogTimeout)
	defer cancel()
	at, err := finder.Find(ctx, id)
	return err == nil && !at.Enqueued.IsZero() && at.Enqueued.After(b.At)
}

// explainAtSource explains a message as its source reports it. The error is from
// triggers.Finder.
func explainAtSource(ctx context.Context, function string, source triggers.Trigger, id string) (e api.Explanation, err error) {
	finder, ok := source.(triggers.Finder)
	if !ok {
		return e, triggers.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, autoscale.BacklogTimeout)
	defer cancel()
	at, err := finder.Find(ctx, id)
	if err != nil {
		return e, err
	}
	e = api.Explanation{Function: function, Message: id, State: string(at.Place)}
	switch at.Place {
	case triggers.PlaceReady:
		e.Text = "it is ready at its source"
		if at.Doubtful {
			e.Text = "it is at its source; the source does not report whether it is ready or delivered"
		}
		if at.Ahead >= 0 {
			e.Text += ", behind " + withNoun(at.Ahead, "other", "others")
		}
		e.Notes = append(e.Notes, fmt.Sprintf("drover explain %s shows the limit of the function", function))
	case triggers.PlaceHeld:
		e.Text = "it was prefetched, and waits for a slot, or behind another of its ordering key"
		if !at.Due.IsZero() {
			e.Text = "it was received, and waits for its next attempt, at " + at.Due.Local().Format(time.DateTime)
		}
	case triggers.PlaceLater:
		e.Text = "it is scheduled for later at its source"
		if !at.Due.IsZero() {
			e.Text += ": until " + at.Due.Local().Format(time.DateTime)
		}
	case triggers.PlaceLeased:
		e.Text = "its source has delivered it, but not to a function here: another consumer has it, or it was released, or it waits for its retry, or it is done while earlier ones are not"
	case triggers.PlaceDone:
		e.Text = "it is done; its source keeps it for other consumers"
	case triggers.PlaceSpent:
		e.Text = "its source has delivered it as often as it may, and does not deliver it again; it is about to be dead-lettered"
	}
	if at.Note != "" {
		e.Notes = append(e.Notes, at.Note)
	}
	if at.Failures > 0 {
		e.Notes = append(e.Notes, "it has failed "+withNoun(int64(at.Failures), "time", "times"))
	}
	if !at.Enqueued.IsZero() {
		e.Notes = append(e.Notes, fmt.Sprintf("it was enqueued at %s, %v ago", at.Enqueued.Local().Format(time.DateTime), time.Since(at.Enqueued).Round(time.Second)))
	}
	return e, nil
}

// queryInstances requests the explanations of all instances.
func (v *View) queryInstances(ctx context.Context, about, as string) []api.Explanation {
	var out []api.Explanation
	for _, id := range v.Fleet().InstanceIDs() {
		var answer api.Explanations
		client := admin.NewSocketClient(instances.InstanceDir(v.DataDir(), id))
		if err := client.GetJSON(ctx, api.ExplainPath(about, as), &answer); err != nil {
			v.Log.Debug("cannot query an instance", "instance", id, "error", err)
			continue
		}
		for _, e := range answer.Explanations {
			switch e.State {
			case api.StateUnknown, string(triggers.PlaceReady), string(triggers.PlaceLater), string(triggers.PlaceLeased), string(triggers.PlaceDone), string(triggers.PlaceSpent):
				continue // one request to its source is enough
			}
			e.Instance = id
			out = append(out, e)
		}
	}
	return out
}

// withNoun returns a number with its noun, as in "1 message" and "2 messages".
func withNoun(n int64, singular, plural string) string {
	if n == 1 {
		return "1 " + singular
	}
	return fmt.Sprint(n, " ", plural)
}
