package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// explained requests explanations until the first one has a state.
func explained(t *testing.T, cfg *configs.Config, about, as, state string) daemon.Explanation {
	t.Helper()
	client, err := admin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		var said daemon.Explanations
		if err := client.GetJSON(t.Context(), api.ExplainPath(about, as), &said); err != nil {
			t.Fatal(err)
		}
		if len(said.Explanations) > 0 && said.Explanations[0].State == state {
			return said.Explanations[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %+v; want it %s", about, said, state)
		}
	}
}

func says(t *testing.T, e daemon.Explanation, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if text := statustext.ExplanationText(e, true); !strings.Contains(text, part) {
			t.Errorf("it lacks %q:\n%s", part, text)
		}
	}
}

// Messages are explained in each stage of their life.
func TestExplainMessage(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	defer close(goOn)
	d, queue, cfg := runsFunc(t, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
		switch string(m.Body) {
		case "retry":
			return nil, handlers.RetryAfter(time.Hour, errors.New("no \x1b[2J luck"))
		case "reject":
			return nil, handlers.Reject(errors.New("no good"))
		case "fail":
			return nil, &handlers.Failure{Summary: "ValueError", Detail: "Traceback\n  line 3, in charge\n"}
		}
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return nil, nil
	}, func(cfg *configs.Config) {
		f := cfg.Functions["f"]
		f.Concurrency = 1
		cfg.Functions["f"] = f
	})
	says(t, explained(t, cfg, "f", "", "receiving"), "Function f is receiving. No limit applies", "with 1 free slot", "messages wait at its source", "slots in use: 0 of at most 1")
	queue.Send(triggers.Message{ID: "later", Body: []byte("retry")})
	e := explained(t, cfg, "later", "", "retry")
	says(t, e, "Message later of function f waits for its next attempt. Attempt 1 of 5 failed, and the next is due in ", "the error: no ?[2J luck")
	queue.Send(triggers.Message{ID: "bad", Body: []byte("reject")})
	says(t, explained(t, cfg, "bad", "", "dead"), "moved to the dead letters", "at attempt 1", "the error: no good")
	queue.Send(triggers.Message{ID: "failed", Body: []byte("fail")})
	says(t, explained(t, cfg, "failed", "", "retry"), "the error: ValueError", "line 3, in charge")
	queue.Send(triggers.Message{ID: "f"})
	says(t, explained(t, cfg, "f", "message", "in_flight"), "It is being handled for", "times out in", "this is attempt 1 of 5")
	says(t, explained(t, cfg, "f", "", "full"), "Its slots are in use, 1 of 1: its concurrency is the limit", "1 in flight, the oldest for", "2 failed messages wait for a retry")
	says(t, explained(t, cfg, "nobody", "", api.StateUnknown), "Message nobody was not found. It is not in flight")

	d.SetPaused(t.Context(), "f", true, time.Time{})
	says(t, explained(t, cfg, "f", "", "paused"), "Function f is paused. It stays paused until you run drover resume f")
	d.SetPaused(t.Context(), "f", true, time.Now().Add(time.Hour))
	says(t, explained(t, cfg, "f", "", "paused"), "paused until ")
}

// unreachable is a trigger whose source is unreachable.
type unreachable struct{}

func (unreachable) Receive(context.Context, int) ([]*triggers.Delivery, error) {
	return nil, errors.New("the broker is away")
}
func (unreachable) Backlog(context.Context) (triggers.Backlog, error) {
	return triggers.Backlog{}, triggers.ErrUnknown
}
func (unreachable) Close(context.Context) error { return nil }

func TestExplainWhatCannotReceive(t *testing.T) {
	_, cfg := daemonOn(t, unreachable{}, func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }, nil)
	e := explained(t, cfg, "f", "", "unreachable")
	says(t, e, "Function f cannot receive. Its source has been unreachable for", "the broker is away", "its source does not report its backlog")
	if _, text := ask(t, admin.SocketPath(cfg.DataDir), "/readyz"); !strings.Contains(text, "function f receives nothing") {
		t.Errorf("readiness: %s", text)
	}
}

// shows is a source that finds one message, or fails.
type shows struct {
	unreachable
	found triggers.Found
	err   error
}

func (s shows) Find(context.Context, string) (triggers.Found, error) { return s.found, s.err }

// The explanation of a message that is unknown to the daemon has what its source reports.
func TestExplainWhatTheSourceSays(t *testing.T) {
	due := time.Now().Add(time.Hour)
	for name, test := range map[string]struct {
		source triggers.Trigger
		wants  []string
	}{
		"ready":          {shows{found: triggers.Found{Place: triggers.PlaceReady, Ahead: 7}}, []string{"Message m of function f waits at its source. It is ready at its source, behind 7 others", "drover explain f shows"}},
		"perhaps leased": {shows{found: triggers.Found{Place: triggers.PlaceReady, Ahead: -1, Doubtful: true}}, []string{"f waits at its source. It is at its source; the source does not report whether it is ready or delivered\n"}},
		"held":           {shows{found: triggers.Found{Place: triggers.PlaceHeld}}, []string{"f waits in drover. It was prefetched, and waits for a slot"}},
		"held back":      {shows{found: triggers.Found{Place: triggers.PlaceHeld, Due: due, Failures: 2}}, []string{"f waits in drover. ", "its next attempt, at " + due.Format(time.DateTime), "it has failed 2 times"}},
		"later":          {shows{found: triggers.Found{Place: triggers.PlaceLater, Due: due}}, []string{"f is scheduled for later. ", "scheduled for later at its source: until " + due.Format(time.DateTime)}},
		"deferred":       {shows{found: triggers.Found{Place: triggers.PlaceLater}}, []string{"f is scheduled for later. ", "scheduled for later at its source\n"}},
		"leased":         {shows{found: triggers.Found{Place: triggers.PlaceLeased, Enqueued: time.Now().Add(-time.Minute)}}, []string{"f is delivered. Its source has delivered it", "it was enqueued at ", ", 1m"}},
		"done":           {shows{found: triggers.Found{Place: triggers.PlaceDone}}, []string{"f is done. ", "its source keeps it for other consumers"}},
		"not there":      {shows{err: triggers.ErrNotFound}, []string{"Message m was not found. ", "no source lists it"}},
		"sessions":       {shows{err: fmt.Errorf("q has sessions: %w", triggers.ErrUnsearchable)}, []string{"Message m was not found. ", "the source of f: q has sessions: the source cannot be searched"}},
		"away":           {shows{err: errors.New("no route \x1b[2J")}, []string{"Message m was not found. ", "the source of f: no route ?[2J"}},
		"no finder":      {unreachable{}, []string{"Message m was not found. "}},
	} {
		t.Run(name, func(t *testing.T) {
			_, cfg := daemonOn(t, test.source, func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }, nil)
			client, err := admin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var said daemon.Explanations
			if err := client.GetJSON(t.Context(), api.ExplainPath("m", ""), &said); err != nil || len(said.Explanations) != 1 {
				t.Fatal(said, err)
			}
			says(t, said.Explanations[0], test.wants...)
		})
	}
}

func TestExplainCommand(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"drover.yaml":         strings.Replace(pythonConfig, "    retry:", "    concurrency: 1\n    prefetch: 0\n    retry:", 1),
		"app/function_app.py": "import os, time, drover\ndef greet(body):\n    if body == b'bad': raise drover.Reject('no good')\n    while not os.path.exists(os.path.join(os.path.dirname(__file__), 'go')): time.sleep(0.01)\n",
	})
	file := filepath.Join(dir, "drover.yaml")
	if status, _, errs := command(t.Context(), nil, nil, "explain", "greet", "-c", filepath.Join(dir, "none.yaml")); status != ExitFailed {
		t.Errorf("without a configuration: %d, %s", status, errs)
	}
	out, stop := startCommand(t, "run", file)
	out.WaitFor(t, "\"msg\":\"running\"")
	explain := func(args ...string) string {
		t.Helper()
		status, text, errs := command(t.Context(), nil, nil, append([]string{"explain"}, append(args, "-c", file)...)...)
		if status != ExitOK {
			t.Fatalf("status %d: %s%s", status, text, errs)
		}
		return text
	}
	until := func(want string, args ...string) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(patience); ; <-tick.C {
			text := explain(args...)
			if strings.Contains(text, want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("it lacks %q:\n%s", want, text)
			}
		}
	}
	send := func(body string) {
		t.Helper()
		if status, _, errs := command(t.Context(), nil, nil, "send", "greet", "-c", file, "--body", body); status != ExitOK {
			t.Fatal(errs)
		}
	}
	until("Function greet is receiving. No limit applies", "greet")
	send("bad")
	until("Message greet:1 of function greet is a dead letter. ", "greet:1")
	send("slow")
	until(", in worker ", "greet:2")
	until("Its slots are in use, 1 of 1: its own concurrency is the limit", "greet")
	send("waits")
	until("It is ready at its source, behind 0 others", "greet:3")
	until("Message greet:99 was not found", "greet:99")
	var said daemon.Explanations
	if err := json.Unmarshal([]byte(explain("greet:2", "--json")), &said); err != nil || said.Explanations[0].State != "in_flight" {
		t.Errorf("%+v, %v", said, err)
	}
	if status, _, errs := command(t.Context(), nil, nil, "explain", "greet:2", "-c", file, "--nothing"); status != ExitUsage {
		t.Errorf("status %d, %s", status, errs)
	}
	if err := os.WriteFile(filepath.Join(dir, "app", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop()
	// Without a daemon, the explanations come from the sources and the dead letters.
	status, text, errs := command(t.Context(), nil, nil, "explain", "greet", "-c", file)
	if status != ExitOK || !strings.Contains(text, "Function greet is stopped. No daemon runs it here") || !strings.Contains(errs, "querying the sources instead") {
		t.Errorf("status %d, %s%s", status, text, errs)
	}
	until("Message greet:1 of function greet is a dead letter. ", "greet:1")
}
