package storagequeue

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/triggers"
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

// poller decides when to get messages, and gets them. Guarded by mu.
type poller struct {
	*shared
	paused    bool // no requests before the next Receive
	gets      int  // in flight
	asked     int  // messages requested by these gets
	width     int  // the bound of the number of gets
	pause     *backoff.ExponentialBackOff
	nextGet   time.Time
	throttled bool // nextGet is the server's Retry-After
	alarm     *time.Timer
	opened    time.Time
	expected  []int64 // when messages will be visible, in ms, sorted
}

func newPoller(t *shared) *poller {
	p := &poller{shared: t, width: firstGets, paused: true, opened: time.Now(), pause: pauses(t.cfg.MaxPollInterval)}
	p.alarm = time.AfterFunc(time.Hour, p.onAlarm)
	p.alarm.Stop()
	t.visible, t.buffer.Request = p.expectVisible, p.request
	t.cfg.Memory.OnFreed(t.buffer.Wake)
	return p
}

// pauses returns the backoff of empty gets. It has jitter, so that instances do not poll in step.
func pauses(longest time.Duration) *backoff.ExponentialBackOff {
	const spread = 0.1
	longest = time.Duration(float64(longest) / (1 + spread)) // the bound includes the jitter
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(firstPause, longest)), backoff.WithMaxInterval(longest),
		backoff.WithMultiplier(2), backoff.WithRandomizationFactor(spread), backoff.WithMaxElapsedTime(0))
}

// toRequest returns the number of messages to request now; mu is locked. While some are
// prefetched, it is 0 until a request is worthwhile.
func (p *poller) toRequest() int {
	target := p.buffer.Waiting() + p.prefetchTarget()
	here := p.buffer.Len() + p.asked
	n := target - here
	if here > 0 && n < min(maxGet, (target+1)/2) {
		return 0
	}
	return p.cfg.Memory.More(min(n, maxGet), p.asked)
}

// request starts the gets that are due, or sets the alarm for them; mu is locked.
func (p *poller) request() {
	for !p.buffer.IsClosed() && !p.paused && p.gets < p.width {
		n := p.toRequest()
		if n <= 0 {
			return
		}
		if wait := time.Until(p.nextGet); wait > 0 {
			p.alarm.Reset(wait)
			return
		}
		p.gets++
		p.asked += n
		p.running.Go(func() { p.getMessages(n) })
	}
}

// onAlarm is called by the alarm.
func (p *poller) onAlarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.request()
}

// wake ends the pause between gets.
func (p *poller) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pause.Reset()
	if !p.throttled {
		p.nextGet = time.Time{}
	}
	p.request()
}

// getMessages runs one request and processes its result.
func (p *poller) getMessages(n int) {
	before := time.Now()
	ms, err := p.queue.get(p.asking, n, p.cfg.Lease)
	var ls []*leasedMessage
	for _, m := range ms {
		if l := p.newLeasedMessage(m, before); !p.removeDone(l) {
			ls = append(ls, l)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gets--
	p.asked -= n
	p.throttled = false
	switch {
	case p.buffer.IsClosed() && err != nil:
		return
	case err != nil:
		p.width = 1
		p.fail(err)
		if wait := retryAfter(err); wait > 0 {
			p.throttled, p.nextGet = true, time.Now().Add(wait)
		}
		p.expectVisible(before.Add(p.cfg.Lease)) // the service may have leased messages
		return
	case len(ms) == 0:
		p.width = 1
		p.nextGet = p.nextAfter(time.Now())
	default:
		p.pause.Reset()
		p.nextGet = time.Time{}
		p.width = 1
		if len(ms) == n {
			p.width = min(2*(p.gets+1), maxGets)
		}
	}
	p.addPrefetched(ls)
	p.request()
}

// removeDone deletes a redelivered message that is already done, and reports whether it was one.
func (p *poller) removeDone(l *leasedMessage) bool {
	p.mu.Lock()
	_, done := p.done[l.message.ID]
	p.mu.Unlock()
	if !done {
		return false
	}
	p.running.Go(func() {
		if err := p.queue.remove(p.asking, l.message.ID, l.receipt); err != nil {
			p.log.Debug("cannot delete a message that is done; will try when it is redelivered", "message", l.message.ID, "error", err)
			return
		}
		p.mu.Lock()
		delete(p.done, l.message.ID)
		p.mu.Unlock()
	})
	return true
}

// addPrefetched adds received messages; mu is locked.
func (p *poller) addPrefetched(ls []*leasedMessage) {
	items := make([]*lease.Item[*leasedMessage], 0, len(ls))
	for _, l := range ls {
		p.keeper.Track(&l.Item)
		if l.misfit != "" {
			p.running.Go(func() { p.rejectMisfit(l) })
			continue
		}
		items = append(items, &l.Item)
	}
	if len(ls) > 0 {
		p.buffer.Add(items...)
	}
}

// nextAfter returns when to poll again after an empty get; mu is locked.
func (p *poller) nextAfter(now time.Time) time.Time {
	wait := p.pause.NextBackOff()
	if now.Sub(p.opened) < p.cfg.Lease+afterStart {
		wait = min(wait, afterStart)
	}
	next := now.Add(wait)
	for len(p.expected) > 0 && p.expected[0] < now.Add(-slack).UnixMilli() {
		p.expected = p.expected[1:] // it was received here or elsewhere
	}
	if len(p.expected) > 0 {
		if at := time.UnixMilli(p.expected[0]).Add(slack); at.Before(next) {
			next = at
		}
	}
	return next
}

// expectStep is the precision of expected times.
const expectStep = 250 // ms

// expectVisible records when a message will be visible; mu is locked.
func (p *poller) expectVisible(at time.Time) {
	// The service uses whole seconds, rounded up.
	ms := int64(math.Ceil(float64(at.UnixMilli())/expectStep)) * expectStep
	i, found := slices.BinarySearch(p.expected, ms)
	if !found && len(p.expected) < maxExpected {
		p.expected = slices.Insert(p.expected, i, ms)
	}
	if expected := time.UnixMilli(ms).Add(slack); !p.throttled && expected.Before(p.nextGet) {
		p.nextGet = expected
		p.request()
	}
}

// maxExpected bounds the list of expected times: it covers more than an hour.
const maxExpected = 1 << 14

// fail makes the next Receive return err, and stops requests until then; mu is locked.
func (p *poller) fail(err error) {
	p.paused = true
	p.buffer.Fail(err)
}

// rejectMisfit moves a message that no function can receive.
func (p *poller) rejectMisfit(l *leasedMessage) {
	ctx, cancel := context.WithTimeout(p.asking, p.cfg.Lease)
	defer cancel()
	err := l.Delivery.Settle(ctx, triggers.Verdict{Kind: triggers.Reject, Reason: l.misfit})
	switch {
	case err == nil:
		p.log.Error("message dead-lettered", "message", l.message.ID, "reason", l.misfit)
	case !errors.Is(err, context.Canceled):
		p.log.Error("cannot move a message to the poison queue; will try when it comes again", "message", l.message.ID, "reason", l.misfit, "error", err)
		fallthrough
	default:
		p.untrack(l)
	}
}
