package storagequeue

import (
	"math"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/triggers/lease"
)

// A storage queue must be polled. This file decides when.
//
// If gets return as many messages as requested, more gets run in parallel, until one returns
// fewer. An empty get is followed by a pause, which doubles up to MaxPollInterval. The pause
// ends early when a message is known to become visible: one that was released with a delay, or
// whose lease expires.

const (
	firstPause = 100 * time.Millisecond
	// maxGets bounds the gets in flight. firstGets is the bound at the start, when the backlog
	// is unknown.
	maxGets   = 16
	firstGets = 2
	// afterStart is the longest pause during the first lease time after the start. An
	// earlier process may have been killed, and its leases expire by then.
	afterStart = time.Second
	// slack is added to the time at which a message is expected, because of clock differences and
	// rounding.
	slack = 50 * time.Millisecond
)

// pauses returns the backoff of empty gets. It has jitter, so that instances do not poll in step.
func pauses(longest time.Duration) *backoff.ExponentialBackOff {
	const spread = 0.1
	longest = time.Duration(float64(longest) / (1 + spread)) // the bound includes the jitter
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(firstPause, longest)), backoff.WithMaxInterval(longest),
		backoff.WithMultiplier(2), backoff.WithRandomizationFactor(spread), backoff.WithMaxElapsedTime(0))
}

// prefetchTarget returns the number of messages to prefetch; t.mu is locked.
func (t *trigger) prefetchTarget() int {
	if t.cfg.Prefetch != PrefetchAuto {
		return t.cfg.Prefetch
	}
	return t.rate.Ready()
}

// toRequest returns the number of messages to request now; t.mu is locked. While some are
// prefetched, it is 0 until a request is worthwhile.
func (t *trigger) toRequest() int {
	target := t.buffer.Waiting() + t.prefetchTarget()
	here := t.buffer.Len() + t.asked
	n := target - here
	if here > 0 && n < min(maxGet, (target+1)/2) {
		return 0
	}
	return t.cfg.Memory.More(min(n, maxGet), t.asked)
}

// request starts the gets that are due, or sets the alarm for them; t.mu is locked.
func (t *trigger) request() {
	for !t.buffer.IsClosed() && !t.paused && t.gets < t.width {
		n := t.toRequest()
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

// onAlarm is called by the alarm.
func (t *trigger) onAlarm() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.request()
}

// wake ends the pause between gets.
func (t *trigger) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pause.Reset()
	if !t.throttled {
		t.nextGet = time.Time{}
	}
	t.request()
}

// get runs one request and processes its result.
func (t *trigger) get(n int) {
	before := time.Now()
	ms, err := t.queue.get(t.asking, n, t.cfg.Lease)
	var ls []*leasedMessage
	for _, m := range ms {
		if l := t.newLeasedMessage(m, before); !t.removeDone(l) {
			ls = append(ls, l)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gets--
	t.asked -= n
	t.throttled = false
	switch {
	case t.buffer.IsClosed() && err != nil:
		return
	case err != nil:
		t.width = 1
		t.fail(err)
		if wait := retryAfter(err); wait > 0 {
			t.throttled, t.nextGet = true, time.Now().Add(wait)
		}
		t.expectLocked(before.Add(t.cfg.Lease)) // the service may have leased messages
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
	t.addPrefetched(ls)
	t.request()
}

// removeDone deletes a redelivered message that is already done, and reports whether it was one.
func (t *trigger) removeDone(l *leasedMessage) bool {
	t.mu.Lock()
	_, done := t.done[l.message.ID]
	t.mu.Unlock()
	if !done {
		return false
	}
	t.running.Go(func() {
		if err := t.queue.remove(t.asking, l.message.ID, l.receipt); err != nil {
			t.log.Debug("cannot delete a message that is done; will try when it is redelivered", "message", l.message.ID, "error", err)
			return
		}
		t.mu.Lock()
		delete(t.done, l.message.ID)
		t.mu.Unlock()
	})
	return true
}

// addPrefetched adds received messages; t.mu is locked.
func (t *trigger) addPrefetched(ls []*leasedMessage) {
	items := make([]*lease.Item[*leasedMessage], 0, len(ls))
	for _, l := range ls {
		t.keeper.Track(&l.Item)
		if l.misfit != "" {
			t.running.Go(func() { t.rejectMisfit(l) })
			continue
		}
		items = append(items, &l.Item)
	}
	if len(ls) > 0 {
		t.buffer.Add(items...)
	}
}

// nextAfter returns when to poll again after an empty get; t.mu is locked.
func (t *trigger) nextAfter(now time.Time) time.Time {
	wait := t.pause.NextBackOff()
	if now.Sub(t.opened) < t.cfg.Lease+afterStart {
		wait = min(wait, afterStart)
	}
	next := now.Add(wait)
	for len(t.expected) > 0 && t.expected[0] < now.Add(-slack).UnixMilli() {
		t.expected = t.expected[1:] // it was received here or elsewhere
	}
	if len(t.expected) > 0 {
		if at := time.UnixMilli(t.expected[0]).Add(slack); at.Before(next) {
			next = at
		}
	}
	return next
}

// expectStep is the precision of expected times.
const expectStep = 250 // ms

// expect records when a message will be visible.
func (t *trigger) expect(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expectLocked(at)
}

func (t *trigger) expectLocked(at time.Time) {
	// The service uses whole seconds, rounded up.
	ms := int64(math.Ceil(float64(at.UnixMilli())/expectStep)) * expectStep
	i, found := slices.BinarySearch(t.expected, ms)
	if !found && len(t.expected) < maxExpected {
		t.expected = slices.Insert(t.expected, i, ms)
	}
	if expected := time.UnixMilli(ms).Add(slack); !t.throttled && expected.Before(t.nextGet) {
		t.nextGet = expected
		t.request()
	}
}

// maxExpected bounds the list of expected times: it covers more than an hour.
const maxExpected = 1 << 14

// fail makes the next Receive return err, and stops requests until then; t.mu is locked.
func (t *trigger) fail(err error) {
	t.paused = true
	t.buffer.Fail(err)
}

// maxDone bounds the list of messages to be deleted when they are redelivered.
const maxDone = 1 << 14

// finished records that a message is done, although it could not be deleted.
func (t *trigger) finished(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.done) == maxDone {
		clear(t.done)
	}
	t.done[id] = struct{}{}
}
