package autotune

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// shop is a pool whose calls wait, and fail as the test requires. It treats each call like the
// daemon: messages that fail are retried after a second, three times in all.
type shop struct {
	t      *testing.T
	random *rand.Rand
	c      *Controller
	fails  func(s *shop, call shopCall) string // the error; "" passes
	takes  time.Duration
	rate   float64 // messages a second; 0: all wait from the start

	now     time.Duration
	level   Level
	epoch   int
	passed  int64
	queue   []shopMessage
	again   []shopMessage // released: they run first, the latest before the others
	later   []shopMessage
	running []shopCall
	sample  Function

	sent, done, charged, dead, released int
	undone, renewed                     int
	last                                Decision
}

type shopMessage struct {
	id, attempt int
	due         time.Duration
}

type shopCall struct {
	shopMessage
	epoch int
	under Level
	ends  time.Duration
}

func newShop(t *testing.T, seed uint64, learned *Learned, fails func(s *shop, call shopCall) string) *shop {
	s := &shop{t: t, random: rand.New(rand.NewPCG(seed, 7)), fails: fails, takes: 20 * time.Millisecond}
	s.c = New(Bounds{Least: settings(1, 1, 1), Most: settings(4, 512, 1)}, learned)
	s.look()
	return s
}

func (s *shop) send(n int) {
	for range n {
		s.sent++
		s.queue = append(s.queue, shopMessage{id: s.sent, attempt: 1})
	}
}

func (s *shop) force(d Decision) {
	if os.Getenv("TRACE") != "" && (d.Settings != s.last.Settings || d.Note != s.last.Note) {
		fmt.Printf("%7.3fs %-9s %v %s; %d done, %d charged, %d released\n", s.now.Seconds(), d.Phase, d.Settings, d.Note, s.done, s.charged, s.released)
	}
	s.last = d
	if to := (Level{Settings: d.Settings}); to != s.level || s.epoch == 0 {
		s.level = to
		s.epoch, s.passed = s.c.InForce(s.now, to, map[string]int64{"f": s.passed}), 0
	}
}

func (s *shop) look() {
	s.sample.Name, s.sample.Saturated, s.sample.Passed = "f", len(s.queue)+len(s.again) > 0, s.passed
	s.sample.InFlight = float64(len(s.running))
	ready := s.level.Processes
	s.force(s.c.Look(Sample{At: s.now, Settings: s.level.Settings, Ready: ready, Cores: 2, CPU: 0.05, Functions: []Function{s.sample}}))
	s.sample = Function{}
}

// play advances the time.
//
//go:norace
func (s *shop) play(d time.Duration) {
	const tick = 5 * time.Millisecond
	for end := s.now + d; s.now < end; {
		if s.now%(250*time.Millisecond) == 0 && s.now > 0 {
			s.look()
		}
		s.now += tick
		if s.rate > 0 && s.random.Float64() < s.rate*tick.Seconds() {
			s.send(1)
		}
		s.later = slices.DeleteFunc(s.later, func(m shopMessage) bool {
			if m.due <= s.now {
				s.queue = append(s.queue, m)
			}
			return m.due <= s.now
		})
		for _, call := range s.running {
			if call.ends <= s.now {
				s.end(call)
			}
		}
		s.running = slices.DeleteFunc(s.running, func(c shopCall) bool { return c.ends <= s.now })
		for len(s.queue)+len(s.again) > 0 && len(s.running) < s.level.Processes*s.level.Threads {
			var m shopMessage
			if last := len(s.again) - 1; last >= 0 {
				m, s.again = s.again[last], s.again[:last]
			} else {
				m, s.queue = s.queue[0], s.queue[1:]
			}
			takes := time.Duration(float64(s.takes) * (0.8 + 0.4*s.random.Float64()))
			s.running = append(s.running, shopCall{m, s.epoch, s.level, s.now + takes})
		}
	}
}

//go:norace
func (s *shop) end(call shopCall) {
	wall := s.takes
	s.sample.Measured++
	s.sample.Wall += wall
	s.sample.AllWall += wall
	s.sample.Held += wall
	s.sample.CPU += 200 * time.Microsecond
	why := s.fails(s, call)
	if why == "" {
		s.done++
		s.sample.Done++
		if call.epoch == s.epoch {
			s.passed++
		}
		return
	}
	s.sample.Failed++
	r := s.c.Failed(Call{At: s.now, Function: "f", Attempt: call.attempt, Final: call.attempt == 3, Message: fmt.Sprint(call.id), Epoch: call.epoch, Error: why, Passed: s.passed})
	if r.Changed {
		s.undone++
		s.force(s.c.Decision())
	}
	if r.Renew {
		s.renewed++
		s.epoch, s.passed = s.c.InForce(s.now, s.level, map[string]int64{"f": s.passed}), 0
	}
	switch {
	case r.Release:
		s.released++
		s.again = append(s.again, call.shopMessage)
	case call.attempt == 3:
		s.charged++
		s.dead++
	default:
		s.charged++
		m := call.shopMessage
		m.attempt++
		m.due = s.now + time.Second
		s.later = append(s.later, m)
	}
}

func (s *shop) String() string {
	return fmt.Sprintf("%d of %d done, %d charged, %d dead, %d released, %d renewals; %v, %s: %s; undone %+v",
		s.done, s.sent, s.charged, s.dead, s.released, s.renewed, s.last.Settings, s.last.Phase, s.last.Note, s.last.Undone)
}

// threaded fails in threads.
func threaded(_ *shop, call shopCall) string {
	if call.under.Threads > 1 {
		return fmt.Sprintf("ProgrammingError: SQLite objects created in a thread can only be used in that same thread. The object was created in thread id %d", call.id)
	}
	return ""
}

func seeds(t *testing.T, play func(t *testing.T, seed uint64)) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { play(t, seed) })
	}
}

func TestWhatBreaksInThreadsIsUndone(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		s := newShop(t, seed, nil, threaded)
		s.send(1500)
		s.play(30 * time.Second)
		if s.done != 1500 || s.charged > 10 || s.dead > 0 || s.released > 40 || s.last.Threads != 1 {
			t.Error(s)
		}
		u := s.last.Undone
		if len(u) != 1 || !u[0].Proved || u[0].Key() != "threads: 1" || u[0].Function != "f" || u[0].Tried < 2 {
			t.Errorf("%+v", u)
		}
		if s.last.Processes < 2 {
			t.Errorf("processes are tried still: %v", s.last.Settings)
		}
	})
}

// Calls that wait in a worker during the step run after it.
func TestCallsThatWereHandedOutBefore(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		s := newShop(t, seed, nil, func(s *shop, call shopCall) string {
			call.under.Threads = max(call.under.Threads, s.level.Threads)
			return threaded(s, call)
		})
		s.send(1500)
		s.play(30 * time.Second)
		if s.done != 1500 || s.charged > 10 || s.dead > 0 || len(s.last.Undone) != 1 || s.last.Threads != 1 {
			t.Error(s)
		}
	})
}

// The change stays reverted across a restart, until the learned state is dropped.
func TestWhatIsUndoneIsRemembered(t *testing.T) {
	s := newShop(t, 1, nil, threaded)
	s.send(1500)
	s.play(30 * time.Second)
	text, err := json.Marshal(s.c.Learned())
	if err != nil {
		t.Fatal(err)
	}
	var learned Learned
	if err := json.Unmarshal(text, &learned); err != nil {
		t.Fatal(err)
	}
	next := newShop(t, 2, &learned, threaded)
	next.send(3000)
	next.play(time.Minute)
	if next.done != 3000 || next.released > 0 || next.charged > 0 || next.last.Threads != 1 || len(next.last.Undone) != 1 {
		t.Error(next)
	}
	learned = learned.Changed()
	next = newShop(t, 3, &learned, func(*shop, shopCall) string { return "" })
	next.send(100_000)
	next.play(30 * time.Second)
	if next.last.Threads < 12 {
		t.Errorf("the code was fixed, and it does not climb: %v", next)
	}
}

// Some failures need many calls at once, so they occur during the climb.
func TestWhatBreaksInACrowdIsUndone(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		s := newShop(t, seed, nil, func(s *shop, call shopCall) string {
			if n := call.under.Threads; n > 10 && s.random.Float64() < 0.3 {
				return "PoolTimeout: no connection within 0.5 s"
			}
			return ""
		})
		s.rate = 10
		s.play(20 * time.Second)
		s.send(20_000)
		s.play(time.Minute)
		if s.charged > 20 || s.dead > 0 || s.last.Threads > 10 || s.last.Threads < 2 {
			t.Error(s)
		}
	})
}

// A constant small rate of failures is not attributed to a change; each failure uses an attempt.
func TestFailuresAreNoReason(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		s := newShop(t, seed, nil, func(_ *shop, call shopCall) string {
			if call.id%20 == 0 {
				return fmt.Sprintf("ValueError: no customer %d", call.id)
			}
			return ""
		})
		s.send(200_000)
		s.play(time.Minute)
		if s.dead < 900 || s.last.Threads < 12 || len(s.last.Undone) > 0 {
			t.Error(s)
		}
	})
}

// An outage directly after a step is not attributed to the step permanently: the climb continues
// afterwards.
func TestAnOutageAfterAStep(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		var from time.Duration
		s := newShop(t, seed, nil, func(s *shop, call shopCall) string {
			if call.under.Threads > 1 && from == 0 {
				from = s.now + time.Duration(seed)*40*time.Millisecond
			}
			if from > 0 && s.now >= from && s.now < from+20*time.Second {
				return "ConnectionRefusedError: [Errno 111] Connection refused"
			}
			return ""
		})
		s.send(100_000)
		s.play(2 * time.Minute)
		if s.last.Threads < 12 || len(s.last.Undone) > 0 {
			t.Error(s)
		}
		if s.charged == 0 {
			t.Error("it truly failed, and nothing was charged")
		}
	})
}

// A short outage looks as if the step was the cause. When the same failures occur without the step,
// it is tried again.
func TestItIsTriedAgainWhenItFailsWithoutTheChange(t *testing.T) {
	var outages []time.Duration
	s := newShop(t, 1, nil, func(s *shop, call shopCall) string {
		if call.under.Threads > 1 && outages == nil {
			outages = []time.Duration{s.now, s.now + time.Minute}
		}
		for i, at := range outages {
			if s.now >= at && s.now < at+30*time.Millisecond+time.Duration(i)*2*time.Second {
				return "ConnectionRefusedError: [Errno 111] Connection refused"
			}
		}
		return ""
	})
	s.send(100_000)
	s.play(50 * time.Second)
	if s.last.Threads != 1 || len(s.last.Undone) != 1 {
		t.Fatal(s)
	}
	s.play(time.Minute)
	if s.last.Threads < 12 || len(s.last.Undone) > 0 {
		t.Error(s)
	}
}

// A function that starts to fail permanently at the moment of a step uses attempts in the end.
func TestWhatTrulyFailsIsCharged(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		var from time.Duration
		s := newShop(t, seed, nil, func(s *shop, call shopCall) string {
			if call.under.Threads > 1 && from == 0 {
				from = s.now
			}
			if from > 0 {
				return "KeyError: 'price'"
			}
			return ""
		})
		s.send(1500)
		s.play(5 * time.Minute)
		if s.done+s.dead != s.sent || s.dead < 1000 || len(s.last.Undone) > 0 {
			t.Error(s)
		}
	})
}

// Failures may occur long after their calls began, such as timeouts.
func TestLateFailures(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		s := newShop(t, seed, nil, nil)
		s.fails = func(s *shop, call shopCall) string {
			if call.under.Threads > 1 {
				return "timed out after 5s"
			}
			return ""
		}
		s.takes = 500 * time.Millisecond
		s.send(300)
		s.play(3 * time.Minute)
		if s.done != 300 || s.charged > 10 || s.dead > 0 || s.last.Threads != 1 {
			t.Error(s)
		}
	})
}

// A broken state that a change left in a worker fails until the worker is replaced.
func TestWhatIsLeftBehindInWorkers(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		tainted, renewed := false, 0
		s := newShop(t, seed, nil, nil)
		s.fails = func(s *shop, call shopCall) string {
			if s.renewed > renewed {
				renewed, tainted = s.renewed, false
			}
			if call.under.Threads > 1 {
				tainted = true
			}
			if tainted {
				return "ProgrammingError: SQLite objects"
			}
			return ""
		}
		s.send(1500)
		s.play(30 * time.Second)
		if s.done != 1500 || s.charged > 10 || s.dead > 0 || s.renewed != 1 || s.last.Threads != 1 {
			t.Error(s)
		}
	})
}

// An additional process may also cause failures.
func TestWhatBreaksInProcessesIsUndone(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		s := newShop(t, seed, nil, nil)
		s.fails = func(s *shop, call shopCall) string {
			if call.under.Processes > 1 && s.random.Float64() < 0.6 {
				return "OperationalError: database is locked"
			}
			return ""
		}
		s.send(1500)
		s.play(time.Minute)
		u := s.last.Undone
		if s.done != 1500 || s.charged > 10 || s.dead > 0 || s.last.Processes != 1 || len(u) == 0 || u[0].Key() != "processes: 1" {
			t.Error(s)
		}
	})
}
