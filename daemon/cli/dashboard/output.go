package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	xterm "golang.org/x/term"

	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/triggers"
)

// Output is the destination of a status. All fields but Palette and Resizes are required.
type Output struct {
	In         io.Reader
	Out        io.Writer
	IsTerminal bool // whether Out is
	Palette    term.Palette
	Resizes    func() (changes <-chan os.Signal, stop func()) // as for live.Frame.Follow
	Client     Client
	Every      time.Duration // between two reports
	Once       bool          // shows only the first report
	JSON       bool          // prints it as JSON
}

// ShowStatus shows a report and, unless Once or JSON is set, the following ones, until ctx ends or q is
// pressed: in a dashboard if In and Out are terminals, in a live table if only Out is one, else as plain
// text. readLetters returns the oldest dead letters of a function, at most MaxLetters, and logs to the
// frame.
func (o *Output) ShowStatus(ctx context.Context, readLetters func(ctx context.Context, frame *live.Frame, function string) ([]triggers.DeadLetter, error)) error {
	status := statustext.Status{Palette: o.Palette}
	if err := o.Client.GetJSON(ctx, api.StatusPath, &status.Now); err != nil {
		return err
	}
	in, isFile := o.In.(*os.File)
	switch {
	case o.JSON:
		text, err := json.MarshalIndent(status.Now, "", "  ")
		if err != nil {
			return fmt.Errorf("writing the status: %w", err)
		}
		_, err = o.Out.Write(append(text, '\n'))
		return err
	case o.Once:
		return o.printStatus(status)
	case !o.IsTerminal:
		return o.printEach(ctx, status)
	case !isFile || !xterm.IsTerminal(int(in.Fd())):
		return o.showTable(ctx, status)
	}
	return o.showDashboard(ctx, status, in, readLetters)
}

// printStatus prints a status, and fits it to the width of a terminal.
func (o *Output) printStatus(status statustext.Status) error {
	columns, _, _ := term.Size(o.Out) // 0, no limit, without a terminal
	_, err := fmt.Fprintln(o.Out, strings.Join(status.Lines(columns, 0), "\n"))
	return err
}

// eachReport calls show with each report, until ctx ends.
func (o *Output) eachReport(ctx context.Context, status statustext.Status, show func(statustext.Status) error) error {
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for {
		if err := show(status); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		var now api.StatusReport
		if err := o.Client.GetJSON(ctx, api.StatusPath, &now); err != nil {
			if ctx.Err() != nil {
				return nil // the context ended during the request
			}
			return err
		}
		status.Last, status.Now, status.Every = status.Now, now, o.Every
	}
}

// printEach prints one table after another.
func (o *Output) printEach(ctx context.Context, status statustext.Status) error {
	first := true
	return o.eachReport(ctx, status, func(status statustext.Status) error {
		if !first {
			_, _ = fmt.Fprintln(o.Out)
		}
		first = false
		return o.printStatus(status)
	})
}

// showTable shows a live table on a terminal whose keys cannot be read.
func (o *Output) showTable(ctx context.Context, status statustext.Status) error {
	frame, leave := live.OpenFrame(o.Out, o.In, o.Resizes)
	defer leave()
	status.Widths = make(map[string]int)
	return o.eachReport(ctx, status, func(status statustext.Status) error {
		frame.Show(status.Lines)
		return nil
	})
}

// showDashboard shows a live table that responds to keys, and leaves the last status on the terminal.
func (o *Output) showDashboard(ctx context.Context, status statustext.Status, in *os.File, readLetters func(context.Context, *live.Frame, string) ([]triggers.DeadLetter, error)) error {
	keyboard, err := live.OpenKeyboard(in)
	if err != nil {
		return err
	}
	screen := live.NewScreen(o.Out)
	stopResizes := screen.Follow(o.Resizes)
	reading, cancel := context.WithCancel(ctx)
	keys := make(chan live.Key)
	var wait sync.WaitGroup
	wait.Go(func() {
		defer close(keys)
		keyboard.Read(reading, keys)
	})
	last := Run(ctx, Options{
		Client: o.Client, Every: o.Every, First: status.Now, Frame: screen, Palette: o.Palette, Keys: keys,
		DeadLetters: func(ctx context.Context, function string) ([]triggers.DeadLetter, error) {
			return readLetters(ctx, screen, function)
		},
	})
	cancel()
	wait.Wait()
	stopResizes()
	if err := errors.Join(keyboard.Close(), screen.Close()); err != nil {
		return err
	}
	return o.printStatus(last)
}
