package dashboard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/daemon/cli/dashboard"
	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/live/livetest"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/triggers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeDaemon answers like a daemon with twelve functions.
type fakeDaemon struct {
	mu     sync.Mutex
	paused map[string]time.Time
	posts  []string
	down   bool
}

func (d *fakeDaemon) report() api.StatusReport {
	r := api.StatusReport{Phase: api.PhaseRunning, Since: time.Now().Add(-time.Minute)}
	backlog := int64(7)
	for i := range 12 {
		f := api.FunctionOverview{FunctionStatus: api.FunctionStatus{Name: fmt.Sprintf("f%d", i), Handler: "go f"}, Backlog: &backlog, State: api.StateReceiving}
		if until, found := d.paused[f.Name]; found {
			f.Paused, f.PausedUntil, f.State, f.Reason = true, until, api.StatePaused, "it is paused until resumed"
		}
		if i == 5 {
			f.State, f.Reason = api.StateFull, "its slots are in use, 4 of 4"
		}
		r.Functions = append(r.Functions, f)
	}
	return r
}

func (d *fakeDaemon) GetJSON(_ context.Context, path string, result any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return errors.New("no daemon of this configuration is running here")
	}
	var answer any = d.report()
	if path != api.StatusPath {
		answer = api.Explanations{Explanations: []api.Explanation{{Function: path, State: "full", Text: "its slots are in use", Notes: []string{strings.Repeat("many words ", 100)}}}}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, result)
}

func (d *fakeDaemon) PostEmpty(_ context.Context, path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.posts = append(d.posts, path)
	parts := strings.Split(path, "/")
	name := parts[3]
	switch action, _, _ := strings.Cut(parts[4], "?"); {
	case name == "f11":
		return errors.New("the daemon refuses")
	case action == "pause":
		d.paused[name] = time.Time{}
	default:
		delete(d.paused, name)
	}
	return nil
}

// user presses keys, and reads the screen.
type user struct {
	t      *testing.T
	screen *livetest.Screen
	frames chan struct{}
	keys   chan live.Key
	daemon *fakeDaemon
	ended  chan statustext.Status
}

func start(t *testing.T, columns int) *user {
	u := &user{
		t: t, screen: livetest.New(columns, 20), frames: make(chan struct{}, 1), keys: make(chan live.Key),
		daemon: &fakeDaemon{paused: make(map[string]time.Time)}, ended: make(chan statustext.Status, 1),
	}
	u.screen.Wraps = true
	u.screen.OnFrame = func(lines []string) {
		for _, line := range lines {
			if term.Columns(line) > columns {
				t.Errorf("%q has more than %d columns", line, columns)
			}
		}
		if len(lines) != 20 {
			t.Errorf("%d lines instead of 20:\n%s", len(lines), strings.Join(lines, "\n"))
		}
		select {
		case u.frames <- struct{}{}:
		default:
		}
	}
	o := dashboard.Options{
		Client: u.daemon, Every: 5 * time.Millisecond, First: u.daemon.report(), Frame: live.NewScreen(u.screen), Keys: u.keys,
		DeadLetters: func(_ context.Context, function string) ([]triggers.DeadLetter, error) {
			switch function {
			case "f0":
				return nil, nil
			case "f1":
				return nil, errors.New("set DROVER_SECRET")
			}
			return []triggers.DeadLetter{
				{ID: "17", Function: function, Reason: "no JSON\x1b[2J", Message: triggers.Message{ID: "a", Body: []byte("the first body")}},
				{ID: "18", Function: function, Reason: "timed out", Message: triggers.Message{ID: "b", Body: []byte("the second body")}},
			}, nil
		},
	}
	go func() { u.ended <- dashboard.Run(t.Context(), o) }()
	return u
}

func (u *user) press(keys ...live.Key) {
	for _, key := range keys {
		u.keys <- key
	}
}

func (u *user) typeText(text string) {
	for _, r := range text {
		u.press(live.Key(r))
	}
}

// sees waits until the screen has all of the texts.
func (u *user) sees(texts ...string) {
	u.t.Helper()
	late := time.After(30 * time.Second)
	for {
		all := strings.Join(u.screen.Lines(), "\n")
		found := true
		for _, text := range texts {
			found = found && strings.Contains(all, text)
		}
		if found {
			return
		}
		select {
		case <-u.frames:
		case <-late:
			u.t.Fatalf("not on the screen: %q\n%s", texts, all)
		}
	}
}

func (u *user) quit() {
	u.t.Helper()
	u.press("q")
	if status := <-u.ended; len(status.Now.Functions) != 12 {
		u.t.Errorf("the last status: %+v", status)
	}
}

func TestMoveAndFilter(t *testing.T) {
	for _, columns := range []int{60, 80, 100, 160} {
		u := start(t, columns)
		u.sees("running, for 1m", "▸ f0 ", "q quit  ↑↓ move  p pause")
		u.press(live.KeyDown, "j", live.KeyUp)
		u.sees("▸ f1 ")
		u.press("j", "j", "j", "j")
		u.sees("▸ f5 ", "f5: its slots are in use, 4 of 4") // shown only for the selected function
		u.press(live.KeyEnd)
		u.sees("▸ f11 ")
		u.press("/")
		u.typeText("f1x")
		u.sees("filter: f1x▏", "0 of 12 functions")
		u.press(live.KeyBackspace, live.KeyEnter)
		u.sees("3 of 12 functions", "▸ f11 ")
		u.press(live.KeyHome)
		u.sees("▸ f1 ")
		u.press(live.KeyEscape)
		u.sees("  f0 ", "▸ f1 ")
		u.press("?")
		u.sees("Keys", "pause the function", "esc back")
		u.press("q")
		u.sees("▸ f1 ")
		u.quit()
	}
}

func TestPauseAndResume(t *testing.T) {
	u := start(t, 80)
	u.press(live.KeyDown, "p")
	u.sees("esc: cancel")
	u.press(live.KeyEscape)
	u.sees("▸ f1 ", "q quit")
	u.press("p", live.KeyEnter)
	u.sees("paused f1 until it is resumed")
	u.press(live.KeyDown)
	u.sees("function f1: it is paused until resumed", "  f1        paused")
	u.press("p")
	u.typeText("soon")
	u.press(live.KeyEnter)
	u.sees(`not paused: "soon" is not a duration; write it as 30m or 2h`)
	u.press("p")
	u.typeText("30m")
	u.press(live.KeyEnter)
	u.sees("paused f2 for 30m")
	u.press(live.KeyUp, "r")
	u.sees("resumed f1", "▸ f1        receiving")
	u.press(live.KeyEnd, "r")
	u.sees("failed: the daemon refuses")
	u.quit()
	want := []string{"/v1/functions/f1/pause", "/v1/functions/f2/pause?until=", "/v1/functions/f1/resume", "/v1/functions/f11/resume"}
	if len(u.daemon.posts) != len(want) {
		t.Fatalf("%q, want %q", u.daemon.posts, want)
	}
	for i, path := range want {
		if !strings.HasPrefix(u.daemon.posts[i], path) {
			t.Errorf("%q, want %q", u.daemon.posts[i], path)
		}
	}
}

func TestDeadLetters(t *testing.T) {
	u := start(t, 80)
	u.press("d")
	u.sees("f0 has no dead letters")
	u.press(live.KeyDown, "d")
	u.sees("The dead letters of f1 cannot be read", "set DROVER_SECRET")
	u.press(live.KeyEscape, live.KeyDown, "d")
	u.sees("Dead letters of f2: 2", "▸ 17", "no JSON?[2J")
	u.press(live.KeyDown, live.KeyEnter)
	u.sees("Dead letter 18", "the second body", "drover dead replay f2 18")
	u.press(live.KeyEscape)
	u.sees("Dead letters of f2: 2", "▸ 18")
	u.press(live.KeyEscape)
	u.sees("▸ f2 ")
	u.quit()
}

func TestExplain(t *testing.T) {
	u := start(t, 60)
	u.press(live.KeyEnter)
	u.sees("State of f0", "is at its limit.", "many words many words")
	u.press(live.KeyDown, live.KeyEnd)
	u.sees("esc back")
	u.press(live.KeyEscape)
	u.sees("▸ f0 ")
	u.quit()
}

// A stopped daemon does not end the dashboard, which reports that the table is outdated.
func TestDaemonGone(t *testing.T) {
	u := start(t, 80)
	setDown := func(down bool) {
		u.daemon.mu.Lock()
		defer u.daemon.mu.Unlock()
		u.daemon.down = down
	}
	setDown(true)
	u.sees("no answer since ", "no daemon of this configuration is running here", "▸ f0 ")
	setDown(false)
	u.sees("running, for 1m")
	u.press(live.KeyInterrupt)
	<-u.ended
}

// The dashboard ends when the terminal is gone.
func TestTerminalGone(t *testing.T) {
	u := start(t, 80)
	close(u.keys)
	<-u.ended
}
