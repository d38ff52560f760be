// Package dashboard is the interactive mode of `drover status`: a table of functions that responds to
// keys. The command opens the terminal and calls Run, once.
package dashboard

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/triggers"
)

// Client sends requests to a daemon. Run calls it from several goroutines.
type Client interface {
	GetJSON(ctx context.Context, path string, result any) error
	PostEmpty(ctx context.Context, path string) error
}

// Options are the parts that a dashboard needs. All are required.
type Options struct {
	Client  Client
	Every   time.Duration // between two reports
	First   api.StatusReport
	Frame   *live.Frame // that fills the screen
	Palette term.Palette
	Keys    <-chan live.Key // closed when the terminal is gone
	// DeadLetters returns the oldest dead letters of a function, at most MaxLetters.
	DeadLetters func(ctx context.Context, function string) ([]triggers.DeadLetter, error)
}

// dashboard is a running dashboard. Only the goroutine of Run uses its fields; other goroutines send
// it updates.
type dashboard struct {
	Options
	ctx     context.Context
	updates chan func()
	work    sync.WaitGroup

	status   statustext.Status
	at       time.Time // of the latest report
	lost     error     // why no later report arrived
	asking   bool      // a report is being requested
	selected string    // the function
	filter   string
	notice   string // the result of the last request, until the next key
	prompt   *prompt
	page     page // nil while the table is shown
	quit     bool
}

// prompt is a line of input.
type prompt struct {
	label, text string
	changed     func(text string)
	done        func(text string, ok bool) // ok is false after esc
}

// Run shows the dashboard until q is pressed or ctx ends, and returns the last status.
func Run(ctx context.Context, o Options) statustext.Status {
	ctx, cancel := context.WithCancel(ctx)
	d := &dashboard{Options: o, ctx: ctx, updates: make(chan func())}
	d.status = statustext.Status{Palette: o.Palette, Widths: make(map[string]int)}
	d.status.Now, d.at = o.First, time.Now()
	defer d.work.Wait()
	defer cancel()
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for !d.quit {
		d.draw()
		select {
		case key, open := <-d.Keys:
			if !open {
				return d.status
			}
			d.press(key)
		case update := <-d.updates:
			update()
		case <-tick.C:
			d.refresh()
		case <-ctx.Done():
			return d.status
		}
	}
	return d.status
}

// start runs work in the background, and the update that it returns in the goroutine of Run.
func (d *dashboard) start(work func(ctx context.Context) (update func())) {
	d.work.Go(func() {
		update := work(d.ctx)
		select {
		case d.updates <- update:
		case <-d.ctx.Done():
		}
	})
}

// refresh requests the next report, unless a request is pending.
func (d *dashboard) refresh() {
	if d.asking {
		return
	}
	d.asking = true
	d.start(func(ctx context.Context) func() {
		var now api.StatusReport
		err := d.Client.GetJSON(ctx, api.StatusPath, &now)
		return func() {
			d.asking, d.lost = false, err
			if err == nil {
				d.status.Last, d.status.Now = d.status.Now, now
				d.status.Every, d.at = time.Since(d.at), time.Now()
			}
		}
	})
}

// functions returns the functions that match the filter.
func (d *dashboard) functions() (out []api.FunctionOverview) {
	for _, f := range d.status.Now.Functions {
		if strings.Contains(strings.ToLower(f.Name), strings.ToLower(d.filter)) {
			out = append(out, f)
		}
	}
	return out
}

// cursor returns the index of the selected function in those shown; -1 if none is shown.
func (d *dashboard) cursor(shown []api.FunctionOverview) int {
	i := slices.IndexFunc(shown, func(f api.FunctionOverview) bool { return f.Name == d.selected })
	return max(i, min(0, len(shown)-1))
}

// press handles a key.
func (d *dashboard) press(key live.Key) {
	d.notice = ""
	switch {
	case key == live.KeyInterrupt:
		d.quit = true
	case d.prompt != nil:
		d.prompt.edit(d, key)
	case d.page != nil:
		d.page = d.page.pressKey(key)
	default:
		d.pressInTable(key)
	}
}

func (p *prompt) edit(d *dashboard, key live.Key) {
	switch {
	case key == live.KeyEnter || key == live.KeyEscape:
		d.prompt = nil
		p.done(p.text, key == live.KeyEnter)
		return
	case key == live.KeyBackspace && p.text != "":
		runes := []rune(p.text)
		p.text = string(runes[:len(runes)-1])
	case len([]rune(key)) == 1 && len(p.text) < 100:
		p.text += string(key)
	}
	if p.changed != nil {
		p.changed(p.text)
	}
}

func (d *dashboard) pressInTable(key live.Key) {
	shown := d.functions()
	at := d.cursor(shown)
	switch key {
	case "q":
		d.quit = true
		return
	case "/":
		d.prompt = &prompt{
			label: "filter: ", text: d.filter,
			changed: func(text string) { d.filter = text },
			done: func(_ string, ok bool) {
				if !ok {
					d.filter = ""
				}
			},
		}
		return
	case live.KeyEscape:
		d.filter = ""
		return
	case "?", "h":
		d.page = &textPage{title: "Keys", text: helpText}
		return
	}
	if at < 0 {
		return
	}
	if to, moved := moveCursor(key, at, len(shown)); moved {
		d.selected = shown[to].Name
		return
	}
	d.selected = shown[at].Name
	d.act(key, shown[at])
}

// act handles a key that applies to a function.
func (d *dashboard) act(key live.Key, f api.FunctionOverview) {
	switch key {
	case "p":
		d.prompt = &prompt{
			label: fmt.Sprintf("pause %s for how long (such as 30m)? enter: until resumed, esc: cancel  ", f.Name),
			done: func(text string, ok bool) {
				if ok {
					d.pause(f.Name, text)
				}
			},
		}
	case "r":
		d.post("resumed "+f.Name, api.PausePath(f.Name, false, time.Time{}))
	case "d":
		d.openLetters(f.Name)
	case live.KeyEnter, "e":
		d.explain(f.Name)
	}
}

// pause pauses a function for a duration, or without an end if it is empty.
func (d *dashboard) pause(function, length string) {
	done, until := "paused "+function+" until it is resumed: r", time.Time{}
	if length = strings.TrimSpace(length); length != "" {
		n, err := time.ParseDuration(length)
		if err != nil || n <= 0 {
			d.notice = fmt.Sprintf("not paused: %q is not a duration; write it as 30m or 2h", length)
			return
		}
		until = time.Now().Add(n)
		done = "paused " + function + " for " + length
	}
	d.post(done, api.PausePath(function, true, until))
}

// post sends a request, and reports its result and the state after it.
func (d *dashboard) post(done, path string) {
	d.start(func(ctx context.Context) func() {
		err := d.Client.PostEmpty(ctx, path)
		return func() {
			d.notice = done
			if err != nil {
				d.notice = "failed: " + err.Error()
			}
			d.refresh()
		}
	})
}

// openLetters reads the dead letters of a function, and shows them.
func (d *dashboard) openLetters(function string) {
	d.notice = "reading the dead letters of " + function + " ..."
	d.start(func(ctx context.Context) func() {
		letters, err := d.DeadLetters(ctx, function)
		return func() {
			switch {
			case err != nil:
				d.notice = ""
				d.page = &textPage{title: "The dead letters of " + function + " cannot be read", text: err.Error()}
			case len(letters) == 0:
				d.notice = function + " has no dead letters"
			default:
				d.notice = ""
				d.page = &lettersPage{function: function, letters: letters}
			}
		}
	})
}

// explain requests why a function waits, and shows it.
func (d *dashboard) explain(function string) {
	d.start(func(ctx context.Context) func() {
		var answer api.Explanations
		err := d.Client.GetJSON(ctx, api.ExplainPath(function, "function"), &answer)
		return func() {
			if err != nil {
				d.notice = "failed: " + err.Error()
				return
			}
			var b strings.Builder
			for _, e := range answer.Explanations {
				b.WriteString(statustext.ExplanationText(e, false))
			}
			d.page = &textPage{title: "State of " + function, text: b.String()}
		}
	})
}

const helpText = `↑ ↓  k j      select a function; also page up and down, home and end
enter  e      explain what the function waits for
p             pause the function, for a time or until it is resumed
r             resume the function
d             open its dead letters
/             show only functions whose name contains a text; esc shows all
q  ctrl-c     quit`
