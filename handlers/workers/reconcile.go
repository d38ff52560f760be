package workers

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/handlers/workers/recycle"
	"github.com/drover-run/drover/handlers/workers/spare"
	"github.com/drover-run/drover/handlers/workers/worker"
)

const (
	// healthy is how long a worker must live for the backoff to be reset.
	healthy = 10 * time.Second
	// checkEvery is how often the workers are checked while one is missing.
	checkEvery = 50 * time.Millisecond
	// maxDuds is how many workers may die in a row while they load the code for the first time,
	// before the code counts as the cause.
	maxDuds = 3
	// maxTemplates is how many templates may end in a row before workers are started without
	// one.
	maxTemplates = 3
)

// reconciler starts and stops workers until their number is the target. Only one goroutine
// calls it.
type reconciler struct {
	roster       *roster
	code         *code
	slots        *poolSlots
	launcher     *launcher
	startTimeout time.Duration
	log          *slog.Logger

	restartBackoff *backoff.ExponentialBackOff
	nextStart      time.Time       // no worker is started before this time
	failedStarts   int             // workers in a row that died before they had loaded the code
	deathCauses    []process.Cause // the causes of death of workers to be replaced
	lastCrash      time.Time       // of the last crash

	recycler recycler

	spare     *spare.Keeper // nil: the pool has no spare worker
	spareDue  time.Time     // when the spare worker must be checked again; zero: when something changes
	idleDeath bool          // in this step a worker was found that died with no call in flight

	useTemplate    bool    // if it is possible
	template       *member // nil if there is none
	templateDeaths int     // templates in a row that ended

	stopping sync.WaitGroup // workers that are being stopped
}

func newReconciler(roster *roster, code *code, room *poolSlots, launcher *launcher, spare *spare.Keeper, cfg *Config) *reconciler {
	return &reconciler{
		roster: roster, code: code, slots: room, launcher: launcher, spare: spare,
		startTimeout: cfg.StartTimeout, log: launcher.log,
		restartBackoff: backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(30*time.Second), backoff.WithMaxElapsedTime(0)),
		recycler:    recycler{limits: cfg.Recycle, outdated: launcher.isOutdated},
		useTemplate: cfg.Template,
	}
}

// run takes a step whenever the state may have changed, until ctx ends.
func (r *reconciler) run(ctx context.Context) {
	for {
		r.step()
		var wait time.Duration // 0: until a nudge
		if !r.roster.isSettled() && r.code.loadFailure() == nil {
			wait = checkEvery
		} else if r.recycler.limits.NeedsTimer() {
			wait = recycle.Every
		}
		for _, due := range []time.Time{r.recycler.nextDue, r.spareDue} {
			if due.IsZero() {
				continue
			}
			if until := max(time.Until(due), time.Millisecond); wait == 0 || until < wait {
				wait = until
			}
		}
		var again <-chan time.Time
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.roster.wakeups:
		case <-again:
		}
	}
}

// stop stops the template and the spare worker, and returns when all stopping workers have ended.
func (r *reconciler) stop() {
	r.spare.Stop()
	if r.template != nil {
		r.template.Stop()
	}
	r.stopping.Wait()
}

func (r *reconciler) step() {
	r.recycler.nextDue, r.idleDeath = time.Time{}, false
	members, wanted := r.roster.snapshot()
	if r.roster.waiting.Load() > 0 {
		wanted = max(wanted, 1) // a call waits: the worker must not be stopped while it starts
	}
	disabled := r.code.loadFailure() != nil
	var left []*member
	for _, m := range members {
		if r.checkMember(m) {
			left = append(left, m)
		}
	}
	able, ordinary := r.maintainTemplate(wanted)
	if ordinary != nil {
		left = append(left, ordinary)
	}
	wanted, replaced := r.recycler.chooseWorker(left, wanted)
	if replaced != nil {
		r.recycleWorker(replaced, r.recycler.cause)
	}
	active := 0
	for _, m := range left {
		if !m.IsRetiring() {
			active++
		}
	}
	active -= r.retireWorkers(left, active-wanted)
	now := time.Now()
	for ; able && !disabled && active < wanted && !now.Before(r.nextStart); active++ {
		w, err := r.startMember()
		if err != nil {
			r.log.Error("cannot start a worker; will try again", "error", err)
			r.nextStart = now.Add(r.restartBackoff.NextBackOff())
			break
		}
		if len(r.deathCauses) > 0 {
			r.roster.countRestart(r.deathCauses[0])
			r.deathCauses = r.deathCauses[1:]
		}
		left = append(left, newMember(w, r.recycler.limits))
	}
	r.roster.setMembers(left)
	r.slots.resizeSlots()
	r.spareDue = r.spare.Step(now, spare.Pool{
		Wanted: wanted > 0 && !disabled && !r.useTemplate, Settled: r.roster.isSettled(), PIDs: r.roster.stats().PIDs,
	})
}

// startMember starts a worker of the pool. The spare worker takes the place of one that died idle. If it died
// with calls in flight, the spare worker runs those.
func (r *reconciler) startMember() (*worker.Worker, error) {
	if r.idleDeath {
		r.idleDeath = false
		if w := r.spare.Take(); w != nil {
			return w, nil
		}
	}
	return r.launcher.startWorker()
}

// checkMember checks one worker and reports whether it stays.
func (r *reconciler) checkMember(m *member) bool {
	lived, lives := r.checkProcess(m)
	if lives {
		return true
	}
	if m.IsRetiring() {
		return false
	}
	r.deathCauses = append(r.deathCauses, m.Cause)
	r.idleDeath = r.idleDeath || m.LostCalls == 0
	if r.code.loadFailure() != nil || r.countFailedStart(m) {
		return false
	}
	r.scheduleRestart("a worker died; it will be replaced", m, lived)
	return false
}

// checkProcess records whether a process has loaded the code. It reports whether the process runs,
// and for how long.
func (r *reconciler) checkProcess(m *member) (lived time.Duration, lives bool) {
	lived = time.Since(m.Started)
	select {
	case <-m.Loaded:
		if r.code.recordLoad(m.Worker) {
			r.roster.wakeCallers()
		}
		if !m.startRecorded && m.Ready != nil {
			m.startRecorded = true
			r.recycler.startUp = lived
			m.counters.SetReady(time.Now())
			r.roster.recordStartUp(lived)
		}
	default:
		if lived > r.startTimeout {
			m.Kill(process.CauseStart, fmt.Errorf("the code did not load within %v", r.startTimeout))
		}
	}
	select {
	case <-m.Gone:
	default:
		return lived, true
	}
	m.Wait()
	return lived, false
}

// scheduleRestart sets when the next process is started after one has died. It starts at once if
// the dead one had calls in flight: one of them may have killed it, and isolation finds that call. It
// also starts at once if the dead one had answered calls, or after an occasional death. It backs off
// if processes die in a row at their start, or idle without ever having answered a call.
func (r *reconciler) scheduleRestart(what string, m *member, lived time.Duration) {
	now, delay := time.Now(), time.Duration(0)
	_, answered := m.CallCounts()
	switch {
	case answered > 0, m.LostCalls > 0:
		r.nextStart = now
	case now.Sub(r.lastCrash) > healthy:
		r.restartBackoff.Reset()
		r.lastCrash, r.nextStart = now, now
	default:
		delay = r.restartBackoff.NextBackOff()
		r.lastCrash, r.nextStart = now, now.Add(delay)
	}
	r.log.Warn(what, "worker", m.Process.PID, "error", m.Reason, "lived", lived.Round(time.Millisecond), "in", delay.Round(time.Millisecond))
}

// countFailedStart counts a worker that died while it loaded the code. It reports whether the pool is now
// disabled, because too many have died in a row.
func (r *reconciler) countFailedStart(m *member) bool {
	if r.code.hasLoaded() {
		return false
	}
	if r.failedStarts++; r.failedStarts < maxDuds {
		return false
	}
	why := &handlers.LoadError{Summary: m.Reason.Error(), Detail: m.Process.LastLines()}
	why.Summary = fmt.Sprintf("%d workers in a row ended while they loaded the code; the last one: %s", r.failedStarts, why.Summary)
	if !r.code.disableUnloaded(why) {
		return false
	}
	r.roster.wakeCallers()
	return true
}

// recycleWorker retires a worker that has been replaced.
func (r *reconciler) recycleWorker(m *member, why process.Cause) {
	level := slog.LevelDebug
	if why == process.CauseAnonymous {
		level = slog.LevelInfo
	}
	m.Log.Log(context.Background(), level, "a worker is recycled", "by", why)
	m.Retire()
	r.roster.countRestart(why)
}

// retireWorkers retires n workers: first the one that is being recycled, then those that are not
// ready, then those with the fewest calls in flight. It stops retiring workers without calls in
// flight. It returns the number of workers that it retired.
func (r *reconciler) retireWorkers(members []*member, n int) (chosen int) {
	byLoad := slices.Clone(members)
	slices.Reverse(byLoad) // among equals the newest go: the oldest will be ready first
	usable := func(m *member) int {
		switch {
		case m == r.recycler.recycling:
			return 0
		case m.IsUsable():
			return 2
		}
		return 1
	}
	slices.SortStableFunc(byLoad, func(a, b *member) int {
		return cmp.Or(cmp.Compare(usable(a), usable(b)), cmp.Compare(a.InFlight(), b.InFlight()))
	})
	for _, m := range byLoad {
		if chosen < n && !m.IsRetiring() {
			m.Retire()
			r.log.Debug("a worker retires", "worker", m.Process.PID, "in_flight", m.InFlight())
			chosen++
		}
		if m.IsRetiring() && !m.stopping && m.InFlight() == 0 {
			m.stopping = true
			r.stopping.Go(m.Stop)
		}
	}
	return chosen
}

// maintainTemplate starts the template if it is missing: a process that has loaded the code and runs no
// calls, from which workers are forked. It reports whether workers can be started now. If the
// process cannot be forked from, ordinary is that process, which becomes a worker itself.
func (r *reconciler) maintainTemplate(wanted int) (able bool, ordinary *member) {
	if !r.useTemplate || r.code.loadFailure() != nil {
		return true, nil
	}
	if r.template != nil && r.launcher.isOutdated(r.template.Worker) {
		r.stopping.Go(r.template.Stop) // another starts; the workers that were forked from it continue
		r.template = nil
		r.launcher.setTemplate(nil)
	}
	if r.template != nil {
		if lived, lives := r.checkProcess(r.template); !lives {
			if r.recordTemplateEnd(lived); !r.useTemplate || r.code.loadFailure() != nil {
				return true, nil
			}
		}
	}
	if r.template == nil {
		r.startTemplate(wanted)
		return false, nil
	}
	w := r.template
	if !w.IsUsable() {
		return false, nil
	}
	why := w.Ready.Unforkable
	if !w.HasCapability(protocol.CanFork) {
		why = "a worker in " + w.Welcome.Language + " cannot be forked from"
	}
	if why != "" {
		r.template = nil
		r.giveUpTemplate(why)
		return true, w
	}
	r.launcher.setTemplate(w.Worker)
	return true, nil
}

// giveUpTemplate makes all later workers start without a template.
func (r *reconciler) giveUpTemplate(why string) {
	r.useTemplate = false
	r.launcher.giveUpTemplate(why)
}

// recordTemplateEnd records the end of the template. The workers that were forked from it continue.
func (r *reconciler) recordTemplateEnd(lived time.Duration) {
	w := r.template
	r.template = nil
	r.launcher.setTemplate(nil)
	if r.code.loadFailure() != nil || r.countFailedStart(w) {
		return
	}
	if lived > healthy {
		r.templateDeaths = 0
	}
	if r.templateDeaths++; r.templateDeaths == maxTemplates {
		r.giveUpTemplate(fmt.Sprintf("%d templates in a row ended; the last one: %v", maxTemplates, w.Reason))
		return
	}
	r.scheduleRestart("the template died; it will be replaced", w, lived)
}

// startTemplate starts a template, if it is due and workers are wanted.
func (r *reconciler) startTemplate(wanted int) {
	now := time.Now()
	if wanted == 0 || now.Before(r.nextStart) {
		return
	}
	w, err := r.launcher.startTemplate()
	if err != nil {
		r.log.Error("cannot start the template; will try again", "error", err)
		r.nextStart = now.Add(r.restartBackoff.NextBackOff())
		return
	}
	r.template = newMember(w, r.recycler.limits)
}
