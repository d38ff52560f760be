package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/scaler"
)

// decisions are the latest on how many workers and instances there should be,
// kept in a file for `drover scale explain`. The zero value has none.
type decisions struct {
	mu     sync.Mutex
	latest map[string]decided // by what they are about
	news   chan struct{}      // another number, or another bound
}

// decided is one decision, as it is kept.
type decided struct {
	At      time.Time    `json:"at"`
	Wanted  int          `json:"wanted"`
	Current int          `json:"current"`
	Bound   scaler.Bound `json:"bound"`
	// Text is for people: the inputs, the formula, what held it.
	Text string `json:"text"`
}

// keepEvery is the time between two writes of decisions that are no news.
const keepEvery = 5 * time.Second

func decisionsFile(dataDir string) string { return filepath.Join(dataDir, "scale.json") }

func (d *decisions) note(about string, at time.Time, what scaler.Decision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.latest == nil {
		d.latest = make(map[string]decided)
	}
	before, found := d.latest[about]
	d.latest[about] = decided{at, what.Wanted, what.Current, what.Bound, what.Explain()}
	if news := !found || before.Wanted != what.Wanted || before.Bound != what.Bound; news && d.news != nil {
		select {
		case d.news <- struct{}{}:
		default:
		}
	}
}

// keep writes the decisions to a file until ctx ends, or the returned function is
// called, which removes it.
func (d *decisions) keep(ctx context.Context, path string, failed func(error)) (stop func()) {
	d.mu.Lock()
	d.news = make(chan struct{}, 1)
	d.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(keepEvery)
		defer tick.Stop()
		told := false
		for ctx.Err() == nil {
			select {
			case <-d.news:
			case <-tick.C:
			case <-ctx.Done():
			}
			if err := d.write(path); err != nil && !told {
				told = true
				failed(err)
			}
		}
	}()
	return func() {
		cancel()
		<-ended
		_ = os.Remove(path) // it may never have been written
	}
}

func (d *decisions) write(path string) error {
	d.mu.Lock()
	latest := maps.Clone(d.latest)
	d.mu.Unlock()
	if len(latest) == 0 {
		return nil
	}
	text, err := json.Marshal(latest)
	if err != nil {
		return fmt.Errorf("writing the decisions of the scaler: %w", err)
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("writing the decisions of the scaler: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing the decisions of the scaler: %w", err)
	}
	return nil
}

// explainCommand is `drover scale explain`.
type explainCommand struct {
	File string `arg:"" optional:"" help:"The configuration (default: drover.yaml)." default:"drover.yaml"`
}

func (c *explainCommand) run(std *IO) error {
	cfg, err := configs.Load(c.File, std.Env)
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(decisionsFile(filepath.Join(cfg.DataDir, "instances", "*")))
	if err != nil {
		return fmt.Errorf("looking for the instances' decisions: %w", err)
	}
	found := false
	for _, path := range append([]string{decisionsFile(cfg.DataDir)}, paths...) {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the decisions of the scaler: %w", err)
		}
		var latest map[string]decided
		if err := json.Unmarshal(text, &latest); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		where := ""
		if dir := filepath.Dir(path); dir != cfg.DataDir {
			where = " in instance " + filepath.Base(dir)
		}
		for _, about := range slices.Sorted(maps.Keys(latest)) {
			found = true
			d := latest[about]
			_, _ = fmt.Fprintf(std.Out, "%s%s, decided at %s, %v ago\n", about, where, d.At.Format(time.TimeOnly), time.Since(d.At).Round(time.Second))
			for line := range strings.Lines(d.Text) {
				_, _ = fmt.Fprint(std.Out, "  ", line)
			}
		}
	}
	if !found {
		return fmt.Errorf("nothing has been decided in %s: no daemon of this configuration is running, or it scales nothing (see scale.instances, and apps without processes)", cfg.DataDir)
	}
	return nil
}
