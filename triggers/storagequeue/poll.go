package storagequeue

import (
	"math"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// A storage queue has to be asked, over and over. This file is when.
//
// As long as gets come back full there are more and more of them at once; one
// that does not ends that. An empty one is followed by a pause, which doubles up
// to MaxPollInterval. It is cut short by what is known to become visible: a
// message that was given back with a delay, or the lease of one that was lost.

const (
	firstPause = 100 * time.Millisecond
	// maxGets is how many gets are on their way at once; firstGets, at the start,
	// when nothing is known of the queue.
	maxGets   = 16
	firstGets = 2
	// afterStart is the longest pause in the time of a lease after the start: who
	// ran before may have been killed, and what it had on loan comes back by then.
	afterStart = time.Second
	// slack is how much later than it is expected a message is asked for: clocks
	// and roundings differ a little.
	slack = 50 * time.Millisecond
)

// pauses are spread a little, so that instances do not ask all at once.
func pauses(longest time.Duration) *backoff.ExponentialBackOff {
	const spread = 0.1
	longest = time.Duration(float64(longest) / (1 + spread)) // the longest of all is what was asked for
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(firstPause, longest)), backoff.WithMaxInterval(longest),
		backoff.WithMultiplier(2), backoff.WithRandomizationFactor(spread), backoff.WithMaxElapsedTime(0))
}

// prefetch is how many messages are held ready beyond those that are asked for;
// t.mu is held.
func (t *trigger) prefetch() int {
	if t.cfg.Prefetch != PrefetchAuto {
		return t.cfg.Prefetch
	}
	return t.rate.Ready()
}

// wanted is how many messages to ask for now; t.mu is held. While there are some
// already, it waits until it is worth a request.
func (t *trigger) wanted() int {
	target := t.waiting + t.prefetch()
	here := len(t.held) + t.asked
	n := target - here
	if here > 0 && n < min(maxGet, (target+1)/2) {
		return 0
	}
	return t.cfg.Memory.More(min(n, maxGet), t.asked)
}

// ask sends the gets that are wanted now, or has it done later; t.mu is held.
func (t *trigger) ask() {
	for !t.closed && !t.paused && t.gets < t.width {
		n := t.wanted()
		if n <= 0 {
			return
		}
		if wait := time.Until(t.nextGet); wait > 0 {
			t.alarm.Reset(wait)
			return
		}
		t.gets++
		t.asked += n
		t.running.Go(func() { t.get(n) })
	}
}

// rang is the alarm.
func (t *trigger) rang() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ask()
}

// wake has the trigger ask at once.
func (t *trigger) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pause.Reset()
	if !t.throttled {
		t.nextGet = time.Time{}
	}
	t.ask()
}

// get is one request, and what comes of it.
func (t *trigger) get(n int) {
	before := time.Now()
	ms, err := t.queue.get(t.asking, n, t.cfg.Lease)
	var ls []*loan
	for _, m := range ms {
		if l := t.newLoan(m, before); !t.over(l) {
			ls = append(ls, l)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gets--
	t.asked -= n
	t.throttled = false
	switch {
	case t.closed && err != nil:
		return
	case err != nil:
		t.width = 1
		t.fail(err)
		if wait := retryAfter(err); wait > 0 {
			t.throttled, t.nextGet = true, time.Now().Add(wait)
		}
		t.expectLocked(before.Add(t.cfg.Lease)) // it may have been carried out
		return
	case len(ms) == 0:
		t.width = 1
		t.nextGet = t.nextAfter(time.Now())
	default:
		t.pause.Reset()
		t.nextGet = time.Time{}
		t.width = 1
		if len(ms) == n {
			t.width = min(2*(t.gets+1), maxGets)
		}
	}
	t.take(ls)
	t.ask()
}

// over deletes a message that comes again though it is done.
func (t *trigger) over(l *loan) bool {
	t.mu.Lock()
	_, done := t.done[l.message.ID]
	t.mu.Unlock()
	if !done {
		return false
	}
	t.running.Go(func() {
		if err := t.queue.remove(t.asking, l.message.ID, l.receipt); err != nil {
			t.log.Debug("cannot delete a message that is done; will try when it comes again", "message", l.message.ID, "error", err)
			return
		}
		t.mu.Lock()
		delete(t.done, l.message.ID)
		t.mu.Unlock()
	})
	return true
}

// take notes what came; t.mu is held.
func (t *trigger) take(ls []*loan) {
	soonest := time.Time{}
	for _, l := range ls {
		t.loans[l] = struct{}{}
		soonest = l.renewAt
		if l.misfit != "" {
			t.running.Go(func() { t.rejectMisfit(l) })
			continue
		}
		t.held = append(t.held, l)
	}
	if len(ls) == 0 {
		return
	}
	t.weigh()
	if t.nextCare.IsZero() || soonest.Before(t.nextCare) {
		signal(t.added)
	}
	signal(t.came)
}

// nextAfter is when to ask again after an empty answer; t.mu is held.
func (t *trigger) nextAfter(now time.Time) time.Time {
	wait := t.pause.NextBackOff()
	if now.Sub(t.opened) < t.cfg.Lease+afterStart {
		wait = min(wait, afterStart)
	}
	next := now.Add(wait)
	for len(t.expected) > 0 && t.expected[0] < now.Add(-slack).UnixMilli() {
		t.expected = t.expected[1:] // it was there now, or somebody else has it
	}
	if len(t.expected) > 0 {
		if at := time.UnixMilli(t.expected[0]).Add(slack); at.Before(next) {
			next = at
		}
	}
	return next
}

// expectStep is how exactly it is kept when a message is expected.
const expectStep = 250 // ms

// expect notes when a message will be visible.
func (t *trigger) expect(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expectLocked(at)
}

func (t *trigger) expectLocked(at time.Time) {
	// The service has whole seconds, rounded up.
	ms := int64(math.Ceil(float64(at.UnixMilli())/expectStep)) * expectStep
	i, found := slices.BinarySearch(t.expected, ms)
	if !found && len(t.expected) < maxExpected {
		t.expected = slices.Insert(t.expected, i, ms)
	}
	if expected := time.UnixMilli(ms).Add(slack); !t.throttled && expected.Before(t.nextGet) {
		t.nextGet = expected
		t.ask()
	}
}

// maxExpected bounds what is kept: hours of seconds.
const maxExpected = 1 << 14

// fail has the next Receive fail; t.mu is held. Nothing is asked for before it.
func (t *trigger) fail(err error) {
	t.failed, t.paused = err, true
	signal(t.came)
}

// maxDone bounds the messages that are kept in mind to be deleted.
const maxDone = 1 << 14

// finished notes that a message is done though it could not be deleted.
func (t *trigger) finished(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.done) == maxDone {
		clear(t.done)
	}
	t.done[id] = struct{}{}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
