package daemon

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/time/rate"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/triggers"
)

const (
	// deadLanes is how many dead letters are in hand at once, in as many keys: that many a
	// killed replay leaves in doubt at most.
	deadLanes = 32
	// maxPreview is how many a dry run prints.
	maxPreview = 20
	// failuresInARow is after how many the source is taken to be away.
	failuresInARow = 10
	// maxFailuresSaid bounds what is printed of failures.
	maxFailuresSaid = 5
)

// errNotAll says that some were left. What is in it the summary has not said.
type errNotAll string

func (e errNotAll) Error() string { return string(e) }

// deadChoice is what replay and purge have in common.
type deadChoice struct {
	deadTarget
	IDs []string `arg:"" optional:"" name:"ids" help:"Select those with these IDs, as with --id."`
	deadFilter
	All    bool   `help:"Select all dead letters; required if no other filter is given."`
	Limit  int    `placeholder:"N" help:"Stop after N dead letters, oldest first."`
	Rate   string `placeholder:"N/s" help:"Limit the rate: 100/s, 30/m or 10/h."`
	DryRun bool   `help:"Print what would be done, without doing it."`
}

// check reads the flags.
func (c *deadChoice) check(verb string) (match func(*triggers.DeadLetter) bool, pace *rate.Limiter, err error) {
	c.ID, c.IDs = append(c.ID, c.IDs...), nil
	switch {
	case !c.given() && !c.All:
		return nil, nil, usageError("choose with IDs, --reason, --after, --before or --attribute; --all " + verb + " all of them")
	case c.given() && c.All:
		return nil, nil, usageError("--all is for all of them: leave it out, or the other choices")
	case c.Limit < 0:
		return nil, nil, usageError("--limit must not be negative")
	}
	if pace, err = parseRate(c.Rate); err != nil {
		return nil, nil, err
	}
	match, err = c.compile(c.Function, time.Now())
	return match, pace, err
}

var rateForm = regexp.MustCompile(`^(\d{1,9})(?:/([smh]))?$`)

// parseRate reads 100/s; an empty text is no limit.
func parseRate(text string) (*rate.Limiter, error) {
	if text == "" {
		return rate.NewLimiter(rate.Inf, 1), nil
	}
	m := rateForm.FindStringSubmatch(text)
	if m == nil || m[1] == "0" {
		return nil, usageError(fmt.Sprintf("--rate is %q; write it as 100/s, 30/m or 10/h", text))
	}
	n, _ := strconv.Atoi(m[1]) // it is digits
	in := map[string]time.Duration{"": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour}[m[2]]
	return rate.NewLimiter(rate.Limit(float64(n)/in.Seconds()), 1), nil
}

type deadReplayCommand struct {
	deadChoice
	Shared   bool `help:"Replay even if other subscriptions of the topic, or other consumers of the stream, receive the messages again."`
	Doubtful bool `help:"Replay even messages that a killed replay may already have sent; they may run twice."`
}

func (*deadReplayCommand) Help() string {
	return `Each dead letter is sent back to its queue, topic or subject as a new message at attempt 1, and then removed. A replay that is stopped finishes the message that it is sending. Run the same command again to replay the rest; no message is sent twice. docs/dead-letters.md describes what happens if a replay is killed.

Messages that fail again are not replayed again by the same command. Messages of one session, ordering token or, without those, queue are sent back in the order in which they were dead-lettered.

Examples:

    drover dead replay orders 17
    drover dead replay orders --reason timeout --after 24h --rate 100/s
    drover dead replay orders --all --dry-run
`
}

func (c *deadReplayCommand) Run(ctx context.Context, std *IO) (err error) {
	match, pace, err := c.check("replays")
	if err != nil {
		return err
	}
	d, cfg, done, err := c.open(ctx, std, c.Shared)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	run := &deadRun{std: std, choice: &c.deadChoice, match: match, pace: pace, verb: "replay", done: "replayed", key: replayKey(cfg.Functions[c.Function].Trigger)}
	if c.DryRun {
		return run.preview(ctx, d)
	}
	j, err := openJournal(cfg.DataDir, c.Function)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	run.do = func(ctx context.Context, letter triggers.DeadLetter) error {
		tried, err := j.begin(letter.ID, letter.Died, time.Now())
		if err != nil {
			return err
		}
		if c.Doubtful {
			err = d.Replay(ctx, letter, time.Time{})
		} else {
			err = d.Replay(ctx, letter, tried)
		}
		if err == nil || errors.Is(err, triggers.ErrShared) && tried.IsZero() {
			err = errors.Join(err, j.end(letter.ID))
		}
		return err
	}
	return run.all(ctx, d)
}

// replayKey is what the order of a trigger's messages is within: a session, a token of the
// subject, and else the whole queue.
func replayKey(t configs.Trigger) func(*triggers.DeadLetter) string {
	if t.ServiceBus != nil && t.ServiceBus.Sessions || t.NATS != nil && t.NATS.OrderingToken > 0 {
		return func(letter *triggers.DeadLetter) string { return letter.Message.OrderingKey }
	}
	return func(*triggers.DeadLetter) string { return "" }
}

type deadPurgeCommand struct {
	deadChoice
	Yes bool `help:"Confirm: purged messages cannot be recovered."`
}

func (*deadPurgeCommand) Help() string {
	return `Examples:

    drover dead purge orders --before 30d --dry-run
    drover dead purge orders --before 30d --yes
    drover dead purge orders 17 --yes
`
}

func (c *deadPurgeCommand) Run(ctx context.Context, std *IO) (err error) {
	match, pace, err := c.check("purges")
	if err != nil {
		return err
	}
	if !c.Yes && !c.DryRun {
		return usageError("purged messages cannot be recovered; use --dry-run to print them, --yes to purge them")
	}
	d, cfg, done, err := c.open(ctx, std, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	run := &deadRun{std: std, choice: &c.deadChoice, match: match, pace: pace, verb: "purge", done: "purged"}
	if c.DryRun {
		return run.preview(ctx, d)
	}
	j, err := openJournal(cfg.DataDir, c.Function)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	run.do = func(ctx context.Context, letter triggers.DeadLetter) error {
		if err := d.Remove(ctx, letter); err != nil {
			return err
		}
		return j.end(letter.ID)
	}
	return run.all(ctx, d)
}

// deadRun does something with each of the dead letters that are chosen.
type deadRun struct {
	std        *IO
	choice     *deadChoice
	match      func(*triggers.DeadLetter) bool
	pace       *rate.Limiter
	verb, done string
	do         func(context.Context, triggers.DeadLetter) error
	// key is what a letter's order is within: it is begun when those before it with the
	// same key have ended. Nil is no order.
	key func(*triggers.DeadLetter) string

	mu       sync.Mutex
	finished int
	doubtful int
	failed   int
	inARow   int // of failures
	shared   error
	stuck    map[string]bool // sessions of which one letter was left
	behind   int             // those that were left behind it
	tick     func()
}

// preview prints what would be done.
func (r *deadRun) preview(ctx context.Context, d triggers.DeadLetters) error {
	var some []triggers.DeadLetter
	n := 0
	for letter, err := range eachDead(ctx, d, pageFor(r.choice.Limit)) {
		if err != nil {
			return err
		}
		if !r.match(&letter) {
			continue
		}
		if len(some) < maxPreview {
			some = append(some, letter)
		}
		if n++; n == r.choice.Limit {
			break
		}
	}
	if n > 0 {
		if err := deadTable(r.std.Out, some); err != nil {
			return fmt.Errorf("writing the list: %w", err)
		}
	}
	if n > len(some) {
		_, _ = fmt.Fprintf(r.std.Out, "and %d more\n", n-len(some))
	}
	_, err := fmt.Fprintf(r.std.Out, "matched %d, would %s %d, did nothing (--dry-run)\n", n, r.verb, n)
	return err
}

// all does it. When ctx ends nothing more is begun, and what is in hand is
// finished, unless a second signal says to hurry.
func (r *deadRun) all(ctx context.Context, d triggers.DeadLetters) error {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-r.std.Hurry:
			cancel()
		case <-ended:
		}
	})
	clear := r.progress()
	matched, err := r.each(ctx, working, d)
	close(ended)
	watch.Wait()
	clear()
	return r.report(ctx, matched, err)
}

// each begins with one after the other, in lanes, and returns when all are
// through.
func (r *deadRun) each(ctx, working context.Context, d triggers.DeadLetters) (matched int, err error) {
	var lanes lanes
	defer lanes.wait()
	room := make(chan struct{}, deadLanes)
	for letter, err := range eachDead(ctx, d, r.page()) {
		if err != nil {
			if ctx.Err() != nil {
				err = nil // it was stopped, which the report says
			}
			return matched, err
		}
		if !r.match(&letter) {
			continue
		}
		if r.pace.Wait(ctx) != nil {
			return matched, nil
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return matched, nil
		}
		if r.enough() {
			return matched, nil
		}
		matched++
		lanes.run(r.keyOf(&letter), func() {
			defer func() { <-room }()
			if ctx.Err() == nil && !r.enough() && !r.isBehind(&letter) {
				r.note(letter, r.do(working, letter))
			}
		})
		if matched == r.choice.Limit {
			return matched, nil
		}
	}
	return matched, nil
}

// page is how many are read at once: not more than go in a few seconds, since
// what was read long ago somebody else may have replayed.
func (r *deadRun) page() int {
	page := pageFor(r.choice.Limit)
	if limit := r.pace.Limit(); limit < rate.Limit(page) {
		page = max(1, int(10*limit))
	}
	return min(page, deadPage)
}

// enough reports whether it is no use to go on.
func (r *deadRun) enough() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inARow >= failuresInARow || r.shared != nil
}

func (r *deadRun) keyOf(letter *triggers.DeadLetter) string {
	if r.key == nil {
		return letter.ID
	}
	return r.key(letter)
}

// isBehind reports whether a letter is left since one before it with the same key was.
func (r *deadRun) isBehind(letter *triggers.DeadLetter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stuck[r.keyOf(letter)] {
		r.behind++
		return true
	}
	return false
}

// note counts how one ended.
func (r *deadRun) note(letter triggers.DeadLetter, err error) {
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
		r.inARow = 0
		r.tick()
	case errors.Is(err, triggers.ErrShared):
		r.failed++
		r.shared = err
	case errors.Is(err, triggers.ErrDoubtful):
		r.doubtful++
		if r.doubtful <= maxFailuresSaid {
			r.say(letter, err)
		}
	default:
		r.failed++
		r.inARow++
		if r.failed <= maxFailuresSaid {
			r.say(letter, err)
		}
	}
}

func (r *deadRun) say(letter triggers.DeadLetter, err error) {
	_, _ = fmt.Fprintf(r.std.Err, "dead letter %s: %s\n", term.OneLine(letter.ID, 80), term.Printable(err.Error()))
}

// progress draws on a terminal; clear takes it away.
func (r *deadRun) progress() (clear func()) {
	r.tick = func() {}
	if !r.std.ErrIsTerminal {
		return func() {}
	}
	total := int64(-1) // no source tells how many fit
	if r.choice.Limit > 0 {
		total = int64(r.choice.Limit)
	}
	bar := progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(r.std.Err), progressbar.OptionSetDescription(r.done),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("msg"),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetSpinnerChangeInterval(0)) // which would be a goroutine that outlives it
	r.tick = func() { _ = bar.Add(1) } // it only draws
	return func() { _ = bar.Clear() }
}

// report prints the summary, and returns why not all is done.
func (r *deadRun) report(ctx context.Context, matched int, err error) error {
	left := matched - r.finished
	text := fmt.Sprintf("matched %d, %s %d, left %d", matched, r.done, r.finished, left)
	if r.doubtful > 0 {
		text += fmt.Sprintf(" (%d in doubt)", r.doubtful)
	}
	if r.behind > 0 {
		text += fmt.Sprintf(" (%d behind one that was left, to keep the order)", r.behind)
	}
	stopped := ctx.Err() != nil
	early := stopped || err != nil || r.inARow >= failuresInARow || r.shared != nil
	if early {
		text += ", and those that were not looked at"
	}
	if _, failed := fmt.Fprintln(r.std.Out, text); failed != nil {
		return failed
	}
	switch {
	case err != nil:
		return err
	case r.shared != nil:
		return fmt.Errorf("%w, and would receive them again; add --shared to replay anyway", r.shared)
	case stopped:
		return errNotAll("stopped before the end; run the same command again for the rest")
	case early:
		return errNotAll(fmt.Sprintf("stopped after %d failures in a row; what is left can be tried again", failuresInARow))
	case r.failed > 0:
		return errNotAll(fmt.Sprintf("%d could not be %s, and are still there", r.failed, r.done))
	case r.doubtful > 0:
		return errNotAll(fmt.Sprintf("%d are in doubt: an earlier replay was killed and may have sent them; check whether they ran, then purge them, or replay them with --doubtful", r.doubtful))
	}
	return nil
}
