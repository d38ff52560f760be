// Package pools has the commands that measure worker processes: their start and number, calls that
// block, and timeouts.
package pools

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"

	"github.com/drover-run/drover/bench/rig"
)

type KillsCommand struct {
	Kills  int           `default:"20" help:"Kills in each setup."`
	Import time.Duration `default:"300ms" help:"How long the app takes to import."`
	Memory int           `default:"32" help:"How much it imports, in MiB."`
	Only   string        `default:"" enum:",none,spare,template" help:"Only one setup: none, spare or template."`
}

// killsApp reports the start of each call through a pipe. A call ends when its second start was read.
const killsApp = `
import os, time
time.sleep(%g)
table = [str(number) * 8 for number in range(%d)]
starts = os.open(%q, os.O_WRONLY)
def f(body):
    os.write(starts, b"%%d %%s\n" %% (os.getpid(), body))
    while not os.path.exists(body): time.sleep(0.002)
`

// Run measures how soon the messages of a worker run again after kill -9 of that worker: without a
// spare worker, with one, and with a template.
func (c *KillsCommand) Run(ctx context.Context) error {
	if c.Kills < 1 || c.Memory < 1 || c.Import < 0 {
		return errors.New("all numbers must be at least 1")
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "setup\tin flight\tkills\tcalls know, median\tfirst runs again, median\tlongest\tlast runs again, median\tlongest\tmemory of the pool\t")
	for _, setup := range []struct {
		name   string
		change func(*workers.Config)
	}{
		{"none", func(*workers.Config) {}},
		{"spare", func(cfg *workers.Config) { cfg.Spare = workers.Spare{Keep: true, After: 100 * time.Millisecond} }},
		{"template", func(cfg *workers.Config) { cfg.Template = true }},
	} {
		if c.Only != "" && c.Only != setup.name {
			continue
		}
		for _, inFlight := range []int{1, 16} {
			k := killTimes{inFlight: inFlight, known: make(chan time.Time, 1)}
			if err := k.run(ctx, c, setup.change, setup.name == "spare"); err != nil {
				return fmt.Errorf("%s, %d in flight: %w", setup.name, inFlight, err)
			}
			ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1e3) }
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%.0f MiB\t\n", setup.name, inFlight, len(k.first), ms(rig.Median(k.noticed)),
				ms(rig.Median(k.first)), ms(slices.Max(k.first)), ms(rig.Median(k.last)), ms(slices.Max(k.last)), float64(k.memory)/(1<<20))
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// killTimes are the times of one setup, from the kill on.
type killTimes struct {
	inFlight             int
	noticed, first, last []time.Duration
	memory               uint64 // of the idle pool, as a proportional share

	known  chan time.Time // when a call knew that its worker died
	starts *bufio.Reader  // from which the starts of calls are read
}

func (k *killTimes) run(ctx context.Context, c *KillsCommand, change func(*workers.Config), spare bool) (err error) {
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	pipe := filepath.Join(dir, "starts")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		return err
	}
	starts, err := os.OpenFile(pipe, os.O_RDWR, 0) // for reading, too, since a worker that opens it must not wait
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, starts.Close()) }()
	k.starts = bufio.NewReader(io.Reader(starts))
	p, end, err := pythonPool(ctx, fmt.Sprintf(killsApp, c.Import.Seconds(), c.Memory*9500, pipe), []string{"f"}, func(cfg *workers.Config) {
		cfg.Settings.Threads = k.inFlight
		cfg.Died = func(context.Context, error) {
			select {
			case k.known <- time.Now():
			default:
			}
		}
		change(cfg)
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	for n := range c.Kills {
		settled := func() bool {
			s := p.Stats()
			return s.Ready == 1 && (s.Spare == 1 || !spare)
		}
		if err := rig.Until(ctx, settled); err != nil {
			return fmt.Errorf("%+v: %w", p.Stats(), err)
		}
		if n == 0 {
			k.memory = p.Usage().Memory.Proportional
		}
		if err := k.killOne(ctx, p, filepath.Join(dir, strconv.Itoa(n))); err != nil {
			return err
		}
	}
	return nil
}

// killOne starts calls, kills their worker when all run, and waits until all run again. The calls end
// when the file exists.
func (k *killTimes) killOne(ctx context.Context, p *workers.Pool, file string) error {
	h, err := p.HandlerOf("f")
	if err != nil {
		return err
	}
	var calls sync.WaitGroup
	errs := make(chan error, k.inFlight)
	for i := range k.inFlight {
		calls.Go(func() {
			_, err := h.Handle(ctx, &triggers.Message{ID: fmt.Sprint(file, i), Body: []byte(file), Attempt: 1})
			errs <- err
		})
	}
	pid := 0
	for range k.inFlight {
		if pid, err = k.nextStart(); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	for i := range k.inFlight {
		if _, err := k.nextStart(); err != nil {
			return err
		}
		if i == 0 {
			k.first = append(k.first, time.Since(began))
		}
	}
	k.last = append(k.last, time.Since(began))
	k.noticed = append(k.noticed, (<-k.known).Sub(began))
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	calls.Wait()
	close(errs)
	for one := range errs {
		err = errors.Join(err, one)
	}
	select {
	case <-k.known: // of another call
	default:
	}
	return err
}

// nextStart reads the start of a call, and returns its worker.
func (k *killTimes) nextStart() (pid int, err error) {
	line, err := k.starts.ReadString('\n')
	if err != nil {
		return 0, err
	}
	number, _, _ := strings.Cut(line, " ")
	return strconv.Atoi(number)
}
