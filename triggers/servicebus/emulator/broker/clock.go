package broker

import (
	"container/heap"
	"sync"
	"time"
)

// clock runs functions at given times. All methods except run are called with the namespace locked.
type clock struct {
	now    func() time.Time
	timers timers
	due    chan struct{} // the first timer changed
}

type timer struct {
	at time.Time
	do func()
}

type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	(*t)[len(*t)-1] = timer{}
	*t = (*t)[:len(*t)-1]
	return last
}

// at calls do at a time, with the namespace locked.
func (c *clock) at(when time.Time, do func()) {
	heap.Push(&c.timers, timer{when, do})
	if c.timers[0].at.Equal(when) {
		c.wake()
	}
}

// wake makes run check the times.
func (c *clock) wake() {
	select {
	case c.due <- struct{}{}:
	default:
	}
}

// run runs the functions that are due, until stop is closed.
func (c *clock) run(namespace sync.Locker, stop <-chan struct{}) {
	for {
		namespace.Lock()
		wait := time.Hour
		for len(c.timers) > 0 {
			if wait = c.timers[0].at.Sub(c.now()); wait > 0 {
				break
			}
			heap.Pop(&c.timers).(timer).do()
			wait = time.Hour
		}
		namespace.Unlock()
		sleep := time.NewTimer(wait)
		select {
		case <-sleep.C:
		case <-c.due:
		case <-stop:
			sleep.Stop()
			return
		}
		sleep.Stop()
	}
}
