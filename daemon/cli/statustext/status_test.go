package statustext

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
)

// report returns a report of functions in all states, with long texts.
func report() api.StatusReport {
	backlog := int64(1234567)
	r := api.StatusReport{Phase: api.PhaseRunning, Since: time.Now().Add(-time.Hour)}
	for i, state := range []string{api.StateReceiving, api.StateIdle, api.StateFull, api.StatePaused, api.StateAppDown, api.StateUnreachable, api.StateStopped, api.StateNoWorker} {
		f := api.FunctionOverview{
			FunctionStatus: api.FunctionStatus{
				Name: fmt.Sprintf("orders-of-region-%d", i), Handler: "python function_app.orders in app /home/someone/projects/very/long/path/shop",
				FunctionCounts: api.FunctionCounts{Done: 1234567, InFlight: 512, Failed: 3, Rejected: 2}, WorkerCounts: api.WorkerCounts{Workers: 4},
			},
			Backlog: &backlog, Oldest: 90, State: state, Kind: &api.FunctionKind{Kind: "async", BlocksLoop: true},
		}
		if state != api.StateReceiving && state != api.StateIdle {
			f.Reason = "the reason, which is a long text of many words, so that it is broken into several lines on most terminals"
		}
		r.Functions = append(r.Functions, f)
	}
	r.Apps = []api.AppOverview{{Name: "/home/someone/projects/very/long/path/shop", Processes: 2, Threads: 1, Coroutines: 512, Auto: []string{"processes"}, Phase: "hold", Note: "the best that was found by measuring the throughput of several settings"}}
	r.Advice = []string{"app /home/someone/projects/very/long/path/shop: a worker takes 2.1s\nand more", "no app"}
	return r
}

func TestStatusFits(t *testing.T) {
	for _, columns := range []int{40, 60, 80, 100, 160} {
		for _, rows := range []int{0, 12, 24, 60} {
			lines := Status{Now: report()}.Lines(columns, rows)
			if rows > 0 && len(lines) > rows {
				t.Errorf("%d lines for %d rows", len(lines), rows)
			}
			for _, line := range lines {
				if term.Columns(line) > columns {
					t.Errorf("%d columns: %q has %d", columns, line, term.Columns(line))
				}
				if strings.Contains(line, "/home/") {
					t.Errorf("a path: %q", line)
				}
			}
		}
	}
	for columns, titles := range map[int]string{
		60:  "function state waiting done/s in flight",
		80:  "function state waiting in flight done/s failed dead",
		100: "function state waiting in flight done/s p99 workers failed dead",
		160: "function state waiting oldest in flight done/s p50 p99 workers failed dead kind handler",
	} {
		header := strings.Join(strings.Fields(Status{Now: report()}.Lines(columns, 0)[1]), " ")
		for title := range strings.FieldsSeq(titles) {
			if !strings.Contains(header, title) {
				t.Errorf("%d columns: no %s in %q", columns, title, header)
			}
		}
	}
}

func TestStates(t *testing.T) {
	text := Status{Now: report()}.Text()
	for _, want := range []string{"  app down  ", "  no worker  ", "function orders-of-region-4: the reason", "python function_app.orders in app shop\n", "app shop: up to 2 processes (auto)", "\napp shop: a worker takes 2.1s\nno app\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "region-2: the reason") || strings.Contains(text, "\x1b") {
		t.Errorf("a busy function has a line:\n%s", text)
	}
	f := api.FunctionOverview{State: api.StatePaused}
	f.PausedUntil = time.Now().Add(48 * time.Hour)
	if got, want := stateCell(f).Text, "paused until "+f.PausedUntil.Local().Format("Jan 2 15:04"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	on := term.NewPalette(true, func(string) (string, bool) { return "", false })
	if text := (Status{Now: report(), Palette: on}).Text(); !strings.Contains(text, "\x1b[31mapp down\x1b[0m") || !strings.Contains(text, "\x1b[32mreceiving\x1b[0m") {
		t.Errorf("without colors:\n%q", text)
	}
}

func TestShortApp(t *testing.T) {
	for name, want := range map[string]string{"/home/a/shop": "shop", "/home/a/shop/": "shop", "shop": "shop", "/": "/", "": "", "./a/b": "./a/b"} {
		if got := ShortApp(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
