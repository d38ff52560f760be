package emulator

func (q *queue) pumpSessions() {
	for len(q.accepting) > 0 {
		l := q.freeSession()
		if l == nil {
			break
		}
		to := q.accepting[0]
		q.accepting = q.accepting[1:]
		to.accept(l)
	}
	for _, to := range q.receivers {
		if to.session == nil {
			continue
		}
		for len(to.session.entries) > 0 && to.canTake() {
			x := to.session.entries[0]
			to.session.entries = to.session.entries[1:]
			to.deliver(x)
		}
	}
}

// freeSession is the session with messages that nobody holds and whose turn it
// is: the one that was held the longest ago.
func (q *queue) freeSession() (best *line) {
	for _, l := range q.lines {
		if l.owner == nil && len(l.entries) > 0 && (best == nil || l.touched.Before(best.touched)) {
			best = l
		}
	}
	return best
}

// hold gives a session to a link.
func (q *queue) hold(l *line, to *link) {
	l.owner, l.until, l.touched = to, q.e.now().Add(q.options.LockDuration), q.e.now()
	to.session = l
	q.watchSession(l, to)
}

func (q *queue) watchSession(l *line, holder *link) {
	q.e.at(l.until, func() {
		switch {
		case l.owner != holder:
		case q.e.now().Before(l.until):
			q.watchSession(l, holder)
		default:
			for _, x := range q.locked {
				if x.owner == holder {
					q.usage.Lost++
				}
			}
			holder.detach(failure(condSessionLost, "The session lock has expired on the MessageSession. Accept a new MessageSession."))
		}
	})
}
