// Package guard finds out whether calls fail because the settings of their pool have changed. One
// goroutine at a time uses a Guard.
package guard

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// Guard detects failures that a change of settings causes. It counts the calls and the failures of
// each function under each level. When a kind of failure is much more frequent under a new level
// than under an earlier one, the guard requests the earlier level, and checks there: calls that
// succeed prove that the change caused the failures, and the same failures prove that it did not.
// Failures that a change may have caused are released, a bounded number of times per message.
type Guard struct {
	least   Level     // no level is below this one
	records []*record // by level, the latest in force last
	epochs  map[int]*record
	epoch   int // of the calls that begin now; 0 before the first InForce
	counted map[string]int64
	now     time.Duration

	check    *check           // nil without a suspicion
	undone   []Undone         // the changes that stay reverted
	later    map[string]later // by function and kind of failure: the earliest time of the next check
	released map[string]int   // by function and message: the number of releases
}

// Call is a failed call.
type Call struct {
	At                time.Duration // the Sample's clock
	Function, Message string
	Attempt           int
	Final             bool   // its message would be dead-lettered for it
	Async             bool   // it ran on the event loop
	Epoch             int    // the last result of Controller.InForce when the call was dispatched
	Error             string // one line
	Passed            int64  // the function's calls that were dispatched in the current epoch and succeeded
}

// record has the outcomes under a level.
type record struct {
	Level
	since time.Duration // first time in force
	calls map[string]*outcomes
}

// outcomes counts the calls of one function.
type outcomes struct {
	passed, failed float64
	kinds          map[string]float64 // failed, by kind
}

// check is the trial of an earlier level.
type check struct {
	Undone
	async          bool
	bad, good      *record
	rate           float64 // of the failures under the bad level
	since          int     // the first epoch whose calls count
	renewed        bool    // the workers were replaced
	passed, failed float64
}

// later is the earliest time of the next check of a kind of failure.
type later struct {
	at   time.Duration
	wait time.Duration
}

const (
	// fewFailures is the least number of failures of a kind that starts a check.
	fewFailures = 3
	// leastRate is the least fraction of failed calls.
	leastRate = 0.02
	// oftener is the factor by which failures must be more frequent than before. From half of all
	// calls on they are checked whatever the earlier rate was.
	oftener = 4.0
	half    = 0.5
	// proof is the expected number of failures, at the suspected rate, that must be missing before
	// the change is taken for the cause. With none seen, chance explains five expected ones with a
	// probability of exp(-5), 0.7 %.
	proof = 5.0
	// youngCalls and youngFor are the calls and the time in use after which new failures are not
	// attributed to a level any more. With only fewCalls the time is youngLong.
	youngCalls, fewCalls = 500.0, 20.0
	youngFor, youngLong  = 20 * time.Second, 10 * time.Minute
	// firstReleases bounds the releases of a message before a check. Then only a message that would
	// be dead-lettered at its first attempt is released. mostReleases bounds all releases of a
	// message, and mostMessages the messages whose releases are counted.
	firstReleases, mostReleases = 2, 4
	mostMessages                = 10_000
	// laterFirst and laterMost bound the time until a kind of failure is checked again.
	laterFirst, laterMost = 10 * time.Minute, 4 * time.Hour
	// mostRecords, mostEpochs and mostKinds bound the memory of the guard.
	mostRecords, mostEpochs, mostKinds = 32, 256, 64
)

// New returns a guard. undone are the changes that an earlier one kept reverted.
func New(least pool.Settings, undone []Undone) *Guard {
	return &Guard{
		least: Level{Settings: least}, undone: slices.Clone(undone),
		epochs: map[int]*record{}, counted: map[string]int64{}, later: map[string]later{}, released: map[string]int{},
	}
}

func (o *outcomes) failureRate(kind string) float64 {
	if all := o.passed + o.failed; all > 0 {
		return o.failuresOf(kind) / all
	}
	return 0
}

// failuresOf returns how many calls failed with a kind; "" is any.
func (o *outcomes) failuresOf(kind string) float64 {
	if kind == "" {
		return o.failed
	}
	return o.kinds[kind]
}

// callsOf returns the outcomes of a function.
func (r *record) callsOf(function string) *outcomes {
	o := r.calls[function]
	if o == nil {
		o = &outcomes{kinds: map[string]float64{}}
		r.calls[function] = o
	}
	return o
}

func (o *outcomes) addFailure(kind string) {
	o.failed++
	if _, known := o.kinds[kind]; known || len(o.kinds) < mostKinds {
		o.kinds[kind]++
	}
}

// isYoung reports whether new failures under the level may be caused by it.
func (g *Guard) isYoung(r *record, function string) bool {
	o := r.callsOf(function)
	all, age := o.passed+o.failed, g.now-r.since
	return !(all >= youngCalls && age >= youngFor || all >= fewCalls && age >= youngLong)
}

// InForce records the level of the calls that are dispatched from now on, and counts the calls that
// succeeded in the epoch before, by function. It returns the new epoch.
func (g *Guard) InForce(at time.Duration, level Level, passed map[string]int64) int {
	g.countPassed(at, passed)
	clear(g.counted)
	g.epoch++
	i := slices.IndexFunc(g.records, func(r *record) bool { return r.Level == level })
	var r *record
	if i >= 0 {
		r = g.records[i]
		g.records = slices.Delete(g.records, i, i+1)
	} else {
		r = &record{Level: level, since: at, calls: map[string]*outcomes{}}
		if g.check == nil {
			clear(g.released)
		}
	}
	g.records = append(g.records, r)
	if over := len(g.records) - mostRecords; over > 0 {
		g.records = slices.Delete(g.records, 0, over)
	}
	g.epochs[g.epoch] = r
	delete(g.epochs, g.epoch-mostEpochs)
	if g.check != nil && g.check.since == 0 {
		g.check.since = g.epoch
	}
	return g.epoch
}

// countPassed adds the calls that succeeded in this epoch so far.
func (g *Guard) countPassed(at time.Duration, passed map[string]int64) {
	g.now = at
	r := g.epochs[g.epoch]
	if r == nil {
		return
	}
	for function, n := range passed {
		more := float64(n - g.counted[function])
		if more <= 0 {
			continue
		}
		g.counted[function] = n
		r.callsOf(function).passed += more
		if c := g.check; c != nil && c.since > 0 && g.epoch >= c.since && c.Function == function {
			c.passed += more
		}
		for i := range g.undone {
			if u := &g.undone[i]; u.Function == function && u.seen > 0 {
				u.pass += more
			}
		}
	}
}

// Order is a request of the guard to its caller.
type Order int

// The requests.
const (
	Nothing Order = iota
	Undo          // apply the level of the check
	Renew         // replace the workers
	Proved        // the change was the cause: it stays reverted
	Allow         // allow the reverted change again
)

// Fail takes a failed call. It returns whether its message is released, and the next request.
func (g *Guard) Fail(call Call) (release bool, o Order) {
	g.countPassed(call.At, map[string]int64{call.Function: call.Passed})
	r := g.epochs[call.Epoch]
	if r == nil {
		return false, Nothing // dispatched before the first epoch, or more than mostEpochs ago
	}
	kind := FailureKind(call.Error)
	if g.check != nil {
		return g.failDuringCheck(call, kind, r)
	}
	first := call.Attempt <= 1 // messages that failed before are the worst of all, and prove nothing
	now := g.epochs[g.epoch]
	if call.Epoch < g.epoch && isRiskier(r.Level, now.Level) {
		// It was dispatched before a step, and may have run after it, so it proves nothing.
		return call.Final && first && r.callsOf(call.Function).failuresOf(kind) == 0 && g.isYoung(now, call.Function) && g.mayRelease(call, firstReleases), Nothing
	}
	if first {
		r.callsOf(call.Function).addFailure(kind)
	}
	if slices.ContainsFunc(g.undone, func(u Undone) bool { return u.Function == call.Function && !u.isWithout(r.Level) }) {
		return g.mayRelease(call, mostReleases), Nothing // it began before the change was reverted
	}
	if g.failWithout(call.Function, kind, r) {
		return false, Allow
	}
	if !g.isYoung(r, call.Function) {
		return false, Nothing
	}
	for _, k := range []string{kind, ""} {
		if !first {
			break
		}
		if good := g.findSuspect(r, call.Function, k); good != nil {
			g.beginCheck(call, k, r, good)
			return g.mayRelease(call, mostReleases), Undo
		}
	}
	known := slices.ContainsFunc(g.records, func(b *record) bool { return b != r && b.callsOf(call.Function).failuresOf(kind) > 0 })
	return call.Final && first && g.steppedUp(r) && !known && g.mayRelease(call, firstReleases), Nothing
}

// steppedUp reports whether a level is above the least one.
func (g *Guard) steppedUp(r *record) bool { return isRiskier(g.least, r.Level) }

// findSuspect returns the level under which a kind of failure is known to be much rarer, if the
// failure is frequent under r. It returns nil if it is not frequent, or if there is no such level.
func (g *Guard) findSuspect(r *record, function, kind string) *record {
	o := r.callsOf(function)
	failed, rate := o.failuresOf(kind), o.failureRate(kind)
	if failed < fewFailures || rate < leastRate || g.now < g.later[function+"\n"+kind].at {
		return nil
	}
	// rarer reports that these outcomes are too good for the failure rate of r.
	rarer := func(b *outcomes) bool {
		k, n := b.failuresOf(kind), b.passed+b.failed
		return rate >= math.Min(oftener*(k+0.5)/(n+1), half) && k <= n*rate/oftener
	}
	for _, b := range slices.Backward(g.records) {
		if b != r && isBelow(b.Level, r.Level) && rarer(b.callsOf(function)) {
			return b
		}
	}
	none := &record{Level: g.least, since: g.now, calls: map[string]*outcomes{}}
	known := slices.ContainsFunc(g.records, func(b *record) bool { return b.Level == g.least })
	if !known && isBelow(g.least, r.Level) && rarer(none.callsOf(function)) {
		return none
	}
	return nil
}

// beginCheck starts a check of the level good.
func (g *Guard) beginCheck(call Call, kind string, bad, good *record) {
	u := Undone{Function: call.Function, Error: call.Error, Kind: kind, Rate: bad.callsOf(call.Function).failureRate(kind)}
	g.check = &check{Undone: u, async: call.Async, bad: bad, good: good, rate: u.Rate}
}

// failDuringCheck takes a call that failed during a check.
func (g *Guard) failDuringCheck(call Call, kind string, r *record) (release bool, o Order) {
	c := g.check
	mine := call.Function == c.Function && (c.Kind == "" || c.Kind == kind)
	if c.since == 0 || call.Epoch < c.since {
		// It was dispatched before the check began, so the change may be its cause, too.
		if r == c.bad {
			r.callsOf(call.Function).addFailure(kind)
		}
		fresh := mine || c.good.callsOf(call.Function).failuresOf(kind) == 0
		return fresh && g.mayRelease(call, mostReleases), Nothing
	}
	if mine && !c.renewed {
		// The change may have left a broken state in the workers.
		c.renewed, c.since, c.passed, c.failed = true, 0, 0, 0
		return g.mayRelease(call, mostReleases), Renew
	}
	r.callsOf(call.Function).addFailure(kind)
	if mine {
		c.failed++
	}
	return false, g.decideCheck()
}

// decideCheck ends a check when the cause of the failures is clear.
func (g *Guard) decideCheck() Order {
	c := g.check
	if c == nil || c.since == 0 {
		return Nothing
	}
	expected := c.rate * (c.passed + c.failed)
	why := c.Function + "\n" + c.Kind
	wait := g.later[why].wait
	switch {
	case c.failed >= fewFailures && c.failed >= expected/oftener:
		// It fails without the change, too, but perhaps not under a still earlier level.
		if now := g.epochs[g.epoch]; now != nil {
			if good := g.findSuspect(now, c.Function, c.Kind); good != nil {
				g.check = &check{Undone: c.Undone, async: c.async, bad: c.bad, good: good, rate: now.callsOf(c.Function).failureRate(c.Kind)}
				return Undo
			}
		}
		wait = min(max(2*wait, laterFirst), laterMost)
		g.later[why], g.later[c.Function+"\n"] = later{g.now + wait, wait}, later{g.now + wait, wait}
		g.check = nil
		return Allow
	case expected >= proof && c.failed < expected/oftener:
		c.Proved = true
		if c.rate < half && wait == 0 { // it may have been chance: try again once
			g.later[why] = later{0, laterFirst}
			c.until = g.now + laterFirst
		}
		g.undone = append(g.undone, likeliestChange(c.changesBetween(c.bad.Level, c.good.Level), c.async)...)
		g.check = nil
		return Proved
	}
	return Nothing
}

// failWithout counts a failure under a level without a reverted change, if the change was reverted
// for failures of that kind. It reports whether the change may be tried again, since it was not the
// cause.
func (g *Guard) failWithout(function, kind string, r *record) bool {
	var again bool
	g.undone = slices.DeleteFunc(g.undone, func(u Undone) bool {
		if u.Function != function || u.Kind != "" && u.Kind != kind || !u.isWithout(r.Level) {
			return false
		}
		over := u.seen+1 >= fewFailures && (u.seen+1)/(u.seen+1+u.pass) >= u.Rate/oftener
		again = again || over
		return over
	})
	for i := range g.undone {
		u := &g.undone[i]
		if u.Function == function && (u.Kind == "" || u.Kind == kind) && u.isWithout(r.Level) {
			if u.seen++; u.pass > proof*oftener/u.Rate {
				u.seen, u.pass = 1, 0
			}
		}
	}
	if again {
		why := function + "\n" + kind
		g.later[why] = later{g.now, max(2*g.later[why].wait, laterFirst)}
	}
	return again
}

// Look ends checks and reverted changes that the time, or successful calls, have decided.
func (g *Guard) Look(at time.Duration, passed map[string]int64) Order {
	g.countPassed(at, passed)
	if o := g.decideCheck(); o != Nothing {
		return o
	}
	n := len(g.undone)
	g.undone = slices.DeleteFunc(g.undone, func(u Undone) bool {
		over := u.until > 0 && at >= u.until
		if over { // its levels start again without history
			for _, r := range g.records {
				if !u.isWithout(r.Level) {
					r.since, r.calls = at, map[string]*outcomes{}
				}
			}
		}
		return over
	})
	if len(g.undone) < n {
		return Allow
	}
	return Nothing
}

// mayRelease counts a release of a message and returns true, unless the limit is reached.
func (g *Guard) mayRelease(call Call, most int) bool {
	key := call.Function + "\n" + call.Message
	n := g.released[key]
	if n >= most || n == 0 && len(g.released) >= mostMessages {
		return false
	}
	g.released[key] = n + 1
	return true
}

// Within narrows the bounds by the reverted changes.
func (g *Guard) Within(b pool.Bounds) pool.Bounds {
	for _, u := range g.undone {
		for _, d := range pool.Dims {
			value := min(max(u.Value, b.Least.Get(d)), b.Most.Get(d))
			switch {
			case u.Setting != d.String():
			case u.AtLeast:
				b.Least = b.Least.With(d, value)
			default:
				b.Most = b.Most.With(d, value)
			}
		}
	}
	for _, d := range pool.Dims { // if one is a lower bound and another an upper bound
		b.Most = b.Most.With(d, max(b.Most.Get(d), b.Least.Get(d)))
	}
	return b
}

// All returns the reverted changes, including those that are being checked.
func (g *Guard) All() []Undone {
	out := slices.Clone(g.undone)
	if g.check != nil {
		out = append(out, g.check.changesBetween(g.check.bad.Level, g.check.good.Level)...)
	}
	slices.SortStableFunc(out, func(a, b Undone) int { return cmp.Compare(a.Setting, b.Setting) })
	return out
}

// Lasting returns those to keep across restarts.
func (g *Guard) Lasting() (out []Undone) {
	for _, u := range g.undone {
		if u.until == 0 {
			out = append(out, u)
		}
	}
	return out
}

// Suspect returns the function and the error that the current check is for.
func (g *Guard) Suspect() (function, err string) { return g.check.Function, g.check.Error }

// Back returns settings with the numbers of the level that is being checked, where they differ from
// those under which calls failed.
func (g *Guard) Back(to pool.Settings) pool.Settings {
	for _, d := range pool.Dims {
		if is := g.check.good.Get(d); g.check.bad.Get(d) != is {
			to = to.With(d, is)
		}
	}
	return to
}
