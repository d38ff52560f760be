package triggers

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Budget bounds the bytes of the message bodies that all functions of a daemon hold at
// once: prefetched by a trigger, or in flight. Each function has an Account.
//
// A function requests as many messages as fit, by the sizes of recent messages. If none fits,
// it waits. A message larger than the limit is received when nothing else is held. The size of
// a message is known only after its receipt, and several functions can request at the same
// time. So the limit can be exceeded for a while: if messages are larger than recent ones, or
// by requests of other functions.
type Budget struct {
	limit atomic.Int64
	used  atomic.Int64

	steps    chan struct{}
	short    atomic.Bool // a function waits
	several  atomic.Bool // there are several accounts
	mu       sync.Mutex
	accounts []*Account
}

// NewBudget returns a Budget of limit bytes.
func NewBudget(limit int64) *Budget {
	b := &Budget{steps: make(chan struct{}, 1)}
	b.SetLimit(limit)
	return b
}

// SetLimit changes the number of bytes.
func (b *Budget) SetLimit(limit int64) { b.limit.Store(max(limit, 1)) }

// Limit returns the number of bytes.
func (b *Budget) Limit() int64 { return b.limit.Load() }

// Used returns the number of bytes that are held.
func (b *Budget) Used() int64 { return b.used.Load() }

// Steps receives a value when Used has crossed a multiple of 16 MiB.
func (b *Budget) Steps() <-chan struct{} { return b.steps }

const (
	// stepBits sets the step that Steps signals: 1<<stepBits bytes.
	stepBits = 24
	// shares divides the free bytes: one of several functions requests one share at once.
	shares = 4
	// sizeFades is the part by which the largest size falls with each batch.
	sizeFades = 64
	// hysteresis is the part of the limit that must be free before waiting functions wake.
	hysteresis = 16
	// turnAfter is how long a function waits before the others yield to it. They stop yielding at
	// turnEnds, because the function may have been paused meanwhile.
	turnAfter, turnEnds = time.Second, 5 * time.Second
)

// Account is one function's part of a Budget. It is safe for concurrent use. A nil Account has
// no limit.
type Account struct {
	budget *Budget
	taken  atomic.Int64 // bytes in flight
	held   atomic.Int64 // bytes that are prefetched
	size   atomic.Int64 // the largest recent size of a message; 0: none was received
	since  atomic.Int64 // when it began to wait, in ns; 0: it does not wait
	wake   chan struct{}
	freed  atomic.Pointer[func()]
	closed atomic.Bool
}

// Open returns an account.
func (b *Budget) Open() *Account {
	if b == nil {
		return nil
	}
	a := &Account{budget: b, wake: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts = append(b.accounts, a)
	b.several.Store(len(b.accounts) > 1)
	return a
}

// Close releases all held bytes. No other method is called at the same time.
func (a *Account) Close() {
	if a == nil {
		return
	}
	b := a.budget
	b.mu.Lock()
	b.accounts = slices.DeleteFunc(b.accounts, func(o *Account) bool { return o == a })
	b.several.Store(len(b.accounts) > 1)
	b.mu.Unlock()
	a.since.Store(0)
	a.closed.Store(true)
	b.add(-a.taken.Swap(0) - a.held.Swap(0))
}

// OnFreed sets a function that is called when bytes may be free again after a shortage. f must not
// block.
func (a *Account) OnFreed(f func()) {
	if a != nil {
		a.freed.Store(&f)
	}
}

// Take counts messages that are now in flight.
func (a *Account) Take(messages []*Delivery) {
	if a == nil || len(messages) == 0 {
		return
	}
	var sum, largest int64
	for _, d := range messages {
		n := int64(len(d.Message.Body))
		sum, largest = sum+n, max(largest, n)
	}
	a.learn(largest)
	a.taken.Add(sum)
	a.budget.add(sum)
}

// Done is called when a message of size bytes is no longer in flight.
func (a *Account) Done(size int) {
	if a != nil && size > 0 && !a.closed.Load() {
		a.taken.Add(int64(-size))
		a.budget.add(int64(-size))
	}
}

// Hold sets how many bytes the trigger has prefetched in total. largest is the size of the
// largest message added since the last call.
func (a *Account) Hold(bytes int64, largest int) {
	if a == nil {
		return
	}
	if largest > 0 {
		a.learn(int64(largest))
	}
	a.budget.add(bytes - a.held.Swap(bytes))
}

// learn updates the largest size, which fades.
func (a *Account) learn(largest int64) {
	size := a.size.Load()
	a.size.Store(max(largest, size-size/sizeFades, 1))
}

// add counts, and wakes waiting functions when enough is free.
func (b *Budget) add(n int64) {
	if n == 0 {
		return
	}
	used := b.used.Add(n)
	if used>>stepBits != (used-n)>>stepBits {
		select {
		case b.steps <- struct{}{}:
		default:
		}
	}
	if n > 0 || !b.short.Load() || used > 0 && used > b.Limit()-b.Limit()/hysteresis {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	waits := false
	for _, a := range b.accounts {
		if a.since.Load() == 0 {
			continue
		}
		waits = true
		select {
		case a.wake <- struct{}{}:
		default:
		}
		if f := a.freed.Load(); f != nil {
			(*f)()
		}
	}
	if !waits {
		b.short.Store(false)
		for _, a := range b.accounts { // another may have begun to wait
			if a.since.Load() != 0 {
				b.short.Store(true)
			}
		}
	}
}

// Admit returns how many of n messages may be received now; 0 if the budget is used up.
// Prefetched messages are counted already, so they may always be received.
func (a *Account) Admit(n int) int {
	if a == nil || a.held.Load() > 0 {
		return n
	}
	return a.More(n, 0)
}

// More returns how many of n messages may be requested while coming requested messages have not
// arrived.
func (a *Account) More(n, coming int) int {
	if a == nil || n <= 0 {
		return n
	}
	now := time.Now()
	if more := a.more(n, coming, now); more > 0 {
		if a.since.Load() != 0 {
			a.since.Store(0)
		}
		return more
	}
	a.since.CompareAndSwap(0, now.UnixNano())
	a.budget.short.Store(true)
	return a.more(n, coming, now) // bytes released before since was set have woken no function
}

func (a *Account) more(n, coming int, now time.Time) int {
	b := a.budget
	if b.short.Load() && a.yields(now) {
		return 0
	}
	used := b.used.Load()
	free := b.Limit() - used
	if b.several.Load() {
		// Others may request at the same time, so free bytes are used up in several steps.
		free = max(free/shares, min(free, a.size.Load()))
	}
	fits := a.many(free)
	if used <= 0 { // one message fits, whatever its size
		fits = max(fits, 1)
	}
	return max(0, min(n, fits-coming))
}

// Fits reports whether the budget has room for n more bytes. If it holds nothing, it has room for
// any number.
func (a *Account) Fits(n int64) bool {
	if a == nil || n <= 0 {
		return true
	}
	used := a.budget.used.Load()
	return used <= 0 || used+n <= a.budget.Limit()
}

// Within limits n so that these messages and the coming ones fit into bytes.
func (a *Account) Within(bytes int64, n, coming int) int {
	if a == nil || n <= 0 {
		return n
	}
	return max(0, min(n, max(a.many(bytes), 1)-coming))
}

// many returns how many messages fit into bytes.
func (a *Account) many(bytes int64) int {
	size := a.size.Load()
	if size == 0 {
		return int(min(max(bytes, 0), 1)) // the first message shows the size
	}
	return int(min(max(bytes, 0)/size, 1<<30))
}

// yields reports whether another function goes first: one that has waited longer, or one that
// waits and holds less than its share.
func (a *Account) yields(now time.Time) bool {
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	own, since := a.taken.Load()+a.held.Load(), a.since.Load()
	fair := b.Limit() / int64(max(len(b.accounts), 1))
	for _, o := range b.accounts {
		waits := o.since.Load()
		if o == a || waits == 0 {
			continue
		}
		switch waited := now.Sub(time.Unix(0, waits)); {
		case waited > turnEnds:
			o.since.CompareAndSwap(waits, now.UnixNano())
		case waited > turnAfter && (since == 0 || waits < since):
			return true
		case own > fair && o.taken.Load()+o.held.Load() < fair:
			return true
		}
	}
	return false
}

// Wait waits until a message may be received.
func (a *Account) Wait(ctx context.Context) error {
	for a.Admit(1) == 0 {
		again := time.NewTimer(turnAfter) // the turn of another function ends without a signal
		select {
		case <-a.wake:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			a.since.Store(0)
			return ctx.Err()
		}
		again.Stop()
	}
	return nil
}

// Waits reports whether the function waits for bytes.
func (a *Account) Waits() bool { return a != nil && a.since.Load() != 0 }

// Used returns the number of bytes that the function holds.
func (a *Account) Used() int64 {
	if a == nil {
		return 0
	}
	return a.taken.Load() + a.held.Load()
}
