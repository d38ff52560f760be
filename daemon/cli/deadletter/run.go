package deadletter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/time/rate"

	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/triggers"
)

const (
	// maxConcurrent is how many letters are processed at once, of as many keys. A killed replay
	// leaves at most that many in doubt.
	maxConcurrent = 32
	// maxPreview is how many a dry run prints.
	maxPreview = 20
	// maxConsecutiveFailures is after how many failures the source counts as unreachable.
	maxConsecutiveFailures = 10
	// maxFailuresPrinted bounds how many failures are printed.
	maxFailuresPrinted = 5
)

// run is a job that runs.
type run struct {
	job        *Job
	verb, done string // "replay", "replayed"
	// orderKey returns what a letter's order is within: a letter is started when those before it
	// with the same key have ended. If orderKey is nil, there is no order.
	orderKey func(*triggers.DeadLetter) string
	process  func(context.Context, triggers.DeadLetter) error

	mu                  sync.Mutex
	finished            int
	doubtful            int
	failed              int
	consecutiveFailures int
	shared              error
	stuck               map[string]bool // keys with a letter that was left
	skippedBehind       int             // letters that were left behind it
	showProgress        func()
	failures            io.Writer // above the progress
}

// withJournal processes the letters under the journal of the function's replays; with --dry-run
// it prints them.
func (r *run) withJournal(ctx context.Context, d triggers.DeadLetters, process func(context.Context, *journal, triggers.DeadLetter) error) (err error) {
	if r.job.dryRun {
		return r.printPreview(ctx, d)
	}
	records, err := openJournal(r.job.DataDir, r.job.function)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.closeFile()) }()
	r.process = func(ctx context.Context, letter triggers.DeadLetter) error { return process(ctx, records, letter) }
	return r.processAll(ctx, d)
}

// printPreview prints what would be done.
func (r *run) printPreview(ctx context.Context, d triggers.DeadLetters) error {
	var some []triggers.DeadLetter
	n := 0
	for letter, err := range BrowseAll(ctx, d, PageSize(r.job.limit)) {
		if err != nil {
			return err
		}
		if !r.job.isMatch(&letter) {
			continue
		}
		if len(some) < maxPreview {
			some = append(some, letter)
		}
		if n++; n == r.job.limit {
			break
		}
	}
	if n > 0 {
		if err := WriteTable(r.job.Out, some); err != nil {
			return fmt.Errorf("writing the list: %w", err)
		}
	}
	if n > len(some) {
		_, _ = fmt.Fprintf(r.job.Out, "and %d more\n", n-len(some))
	}
	_, err := fmt.Fprintf(r.job.Out, "matched %d, would %s %d, did nothing (--dry-run)\n", n, r.verb, n)
	return err
}

// processAll processes the selected letters, and prints the summary. When ctx ends, no more are
// started; those that were started are finished, unless ForceStop is closed.
func (r *run) processAll(ctx context.Context, d triggers.DeadLetters) error {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-r.job.ForceStop:
			cancel()
		case <-ended:
		}
	})
	clear := r.drawProgress()
	matched, err := r.startLetters(ctx, working, d)
	close(ended)
	watch.Wait()
	clear()
	return r.printSummary(ctx, matched, err)
}

// startLetters starts one letter after another, in lanes, and returns when all have ended.
func (r *run) startLetters(ctx, working context.Context, d triggers.DeadLetters) (matched int, err error) {
	var lanes lanes
	defer lanes.waitAll()
	room := make(chan struct{}, maxConcurrent)
	for letter, err := range BrowseAll(ctx, d, r.pageSize()) {
		if err != nil {
			if ctx.Err() != nil {
				err = nil // it was stopped, which the summary reports
			}
			return matched, err
		}
		if !r.job.isMatch(&letter) {
			continue
		}
		if r.job.limiter.Wait(ctx) != nil {
			return matched, nil
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return matched, nil
		}
		if r.mustStop() {
			return matched, nil
		}
		matched++
		lanes.startLane(r.keyOf(&letter), func() {
			defer func() { <-room }()
			if ctx.Err() == nil && !r.mustStop() && !r.mustSkip(&letter) {
				r.countResult(letter, r.process(working, letter))
			}
		})
		if matched == r.job.limit {
			return matched, nil
		}
	}
	return matched, nil
}

// pageSize returns how many letters are read at once: at most the number that is processed in ten
// seconds, because others may replay letters that were read long ago.
func (r *run) pageSize() int {
	page := PageSize(r.job.limit)
	if limit := r.job.limiter.Limit(); limit < rate.Limit(page) {
		page = max(1, int(10*limit))
	}
	return min(page, FullPage)
}

// mustStop reports whether the remaining letters would fail, too.
func (r *run) mustStop() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.consecutiveFailures >= maxConsecutiveFailures || r.shared != nil
}

func (r *run) keyOf(letter *triggers.DeadLetter) string {
	if r.orderKey == nil {
		return letter.ID
	}
	return r.orderKey(letter)
}

// mustSkip reports whether a letter must be left because one before it with the same key was.
func (r *run) mustSkip(letter *triggers.DeadLetter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stuck[r.keyOf(letter)] {
		r.skippedBehind++
		return true
	}
	return false
}

// countResult counts how one ended, and prints the first failures.
func (r *run) countResult(letter triggers.DeadLetter, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key := r.keyOf(&letter); err != nil && key != "" {
		if r.stuck == nil {
			r.stuck = make(map[string]bool)
		}
		r.stuck[key] = true
	}
	switch {
	case err == nil:
		r.finished++
		r.consecutiveFailures = 0
		r.showProgress()
	case errors.Is(err, triggers.ErrShared):
		r.failed++
		r.shared = err
	case errors.Is(err, triggers.ErrDoubtful):
		r.doubtful++
		if r.doubtful <= maxFailuresPrinted {
			r.printFailure(letter, err)
		}
	default:
		r.failed++
		r.consecutiveFailures++
		if r.failed <= maxFailuresPrinted {
			r.printFailure(letter, err)
		}
	}
}

func (r *run) printFailure(letter triggers.DeadLetter, err error) {
	_, _ = fmt.Fprintf(r.failures, "dead letter %s: %s\n", term.OneLine(letter.ID, 80), term.Printable(err.Error()))
}

// drawProgress draws the progress if Err is a terminal; clear removes it.
func (r *run) drawProgress() (clear func()) {
	r.showProgress, r.failures = func() {}, r.job.Err
	if !r.job.ErrIsTerminal {
		return func() {}
	}
	bar := live.NewProgress(r.job.Err, r.job.Palette, r.done, int64(r.job.limit)) // no source reports how many match
	r.showProgress = func() { bar.Add(1) }
	r.failures = bar
	return bar.Remove
}

// printSummary prints the summary, and returns why not all is done.
func (r *run) printSummary(ctx context.Context, matched int, err error) error {
	left := matched - r.finished
	text := fmt.Sprintf("matched %d, %s %d, left %d", matched, r.done, r.finished, left)
	if r.doubtful > 0 {
		text += fmt.Sprintf(" (%d in doubt)", r.doubtful)
	}
	if r.skippedBehind > 0 {
		text += fmt.Sprintf(" (%d after one that was left, to keep the order)", r.skippedBehind)
	}
	stopped := ctx.Err() != nil
	early := stopped || err != nil || r.consecutiveFailures >= maxConsecutiveFailures || r.shared != nil
	if early {
		text += ", and any that were not examined"
	}
	if _, failed := fmt.Fprintln(r.job.Out, text); failed != nil {
		return failed
	}
	switch {
	case err != nil:
		return err
	case r.shared != nil:
		return fmt.Errorf("%w, and would receive them again; add --shared to replay anyway", r.shared)
	case stopped:
		return errors.New("stopped before the end; run the same command again for the rest")
	case early:
		return fmt.Errorf("stopped after %d failures in a row; run the same command again for the rest", maxConsecutiveFailures)
	case r.failed > 0:
		return fmt.Errorf("%d could not be %s, and were kept", r.failed, r.done)
	case r.doubtful > 0:
		return fmt.Errorf("%d are in doubt: an earlier replay was killed and may have sent them; check whether they ran, then purge them, or replay them with --doubtful", r.doubtful)
	}
	return nil
}
