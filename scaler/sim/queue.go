package sim

import "time"

// queue has the waiting messages, the oldest first, as cohorts of one step each.
type queue struct {
	cohorts []cohort
	head    int
	count   int64
}

type cohort struct {
	at    time.Duration
	count int64
}

func (q *queue) add(at time.Duration, n int64) {
	if n == 0 {
		return
	}
	if q.head > len(q.cohorts)/2 {
		q.cohorts = append(q.cohorts[:0], q.cohorts[q.head:]...)
		q.head = 0
	}
	q.cohorts = append(q.cohorts, cohort{at, n})
	q.count += n
}

// putBack returns interrupted messages to the front of the queue.
func (q *queue) putBack(at time.Duration, n int64) {
	if n == 0 {
		return
	}
	if q.head > 0 {
		q.head--
		q.cohorts[q.head] = cohort{at, n}
	} else {
		q.cohorts = append([]cohort{{at, n}}, q.cohorts...)
	}
	q.count += n
}

// take removes the n oldest messages, and calls each with the number of every cohort. At least
// n must wait.
func (q *queue) take(n int64, each func(at time.Duration, n int64)) int64 {
	left := n
	for left > 0 {
		c := &q.cohorts[q.head]
		k := min(c.count, left)
		each(c.at, k)
		left -= k
		if c.count -= k; c.count == 0 {
			q.head++
		}
	}
	q.count -= n
	return n
}

func (q *queue) oldestAge(now time.Duration) time.Duration {
	if q.count == 0 {
		return 0
	}
	return now - q.cohorts[q.head].at
}
