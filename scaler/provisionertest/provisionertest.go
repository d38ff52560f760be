// Package provisionertest is the suite that every provisioner passes, each against
// what it really provisions.
package provisionertest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/drover-run/drover/scaler"
)

// Bed is a place where instances run, and what the suite needs to know of it.
type Bed interface {
	// Open returns a provisioner for the place, and what stops the scaler beside
	// it. It is called again after a stop: the scaler was restarted.
	Open(t *testing.T) (p scaler.Provisioner, stop func())
	// Crash has the scaler's process vanish, in place of the stop.
	Crash(t *testing.T)
	// Running are the instances that really run, those that drain among them, by
	// any name; in no order.
	Running(t *testing.T) []string
	// Busy gives an instance something to do until finish is called.
	Busy(t *testing.T, name string) (finish func())
	// Finished counts what Busy began and an instance came to the end of.
	Finished(t *testing.T) int
	// Kill ends an instance as a crash would.
	Kill(t *testing.T, name string)
}

const (
	patience = time.Minute
	pace     = 5 * time.Millisecond
)

// Run runs the suite; make returns a fresh bed.
func Run(t *testing.T, make func(t *testing.T) Bed) {
	for name, test := range map[string]func(*testing.T, Bed){
		"CountsNoneAtFirst": none,
		"Up":                up,
		"Down":              down,
		"DownWhileBusy":     downWhileBusy,
		"DownAndUpAgain":    downAndUp,
		"ACrashIsReplaced":  crash,
		"RestartOfScaler":   restart,
		"CrashOfScaler":     crashOfScaler,
		"Nonsense":          nonsense,
	} {
		t.Run(name, func(t *testing.T) { test(t, make(t)) })
	}
}

func count(t *testing.T, p scaler.Provisioner) scaler.Count {
	t.Helper()
	c, err := p.Count(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func set(t *testing.T, p scaler.Provisioner, n int) {
	t.Helper()
	if err := p.Set(context.Background(), n); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// settled waits until n are ready, and no other is there.
func settled(t *testing.T, bed Bed, p scaler.Provisioner, n int) {
	t.Helper()
	eventually(t, "the instances that were asked for", func() bool {
		c := count(t, p)
		return c.Ready == n && c.Starting == 0 && c.Draining == 0 && len(bed.Running(t)) == n
	})
}

func none(t *testing.T, bed Bed) {
	p, stop := bed.Open(t)
	defer stop()
	if c := count(t, p); c.Ready+c.Starting+c.Draining != 0 {
		t.Errorf("nothing was asked for, and there are %+v", c)
	}
}

func up(t *testing.T, bed Bed) {
	p, stop := bed.Open(t)
	defer stop()
	set(t, p, 1)
	settled(t, bed, p, 1)
	set(t, p, 3)
	settled(t, bed, p, 3)
	if c := count(t, p); c.StartUp <= 0 || c.StartUp > patience {
		t.Errorf("the start-up took %v", c.StartUp)
	}
}

func down(t *testing.T, bed Bed) {
	p, stop := bed.Open(t)
	defer stop()
	set(t, p, 3)
	settled(t, bed, p, 3)
	before := bed.Running(t)
	set(t, p, 1)
	settled(t, bed, p, 1)
	if left := bed.Running(t); !slices.Contains(before, left[0]) {
		t.Errorf("%v is left, which is none of %v: a new one was started on the way down", left, before)
	}
	set(t, p, 0)
	settled(t, bed, p, 0)
}

// The idle go first; a busy one that must go finishes what it has.
func downWhileBusy(t *testing.T, bed Bed) {
	p, stop := bed.Open(t)
	defer stop()
	set(t, p, 3)
	settled(t, bed, p, 3)
	names := bed.Running(t)
	slices.Sort(names)
	busy := names[:2]
	finish := []func(){bed.Busy(t, busy[0]), bed.Busy(t, busy[1])}
	set(t, p, 2)
	eventually(t, "the idle one has gone", func() bool { return len(bed.Running(t)) == 2 })
	left := bed.Running(t)
	slices.Sort(left)
	if !slices.Equal(left, busy) {
		t.Errorf("%v are left, of which %v were busy", left, busy)
	}
	set(t, p, 0)
	eventually(t, "both drain", func() bool { return count(t, p).Draining == 2 })
	if n := len(bed.Running(t)); n != 2 {
		t.Errorf("%d run while two have something to finish", n)
	}
	for _, f := range finish {
		f()
	}
	settled(t, bed, p, 0)
	if n := bed.Finished(t); n != 2 {
		t.Errorf("%d of 2 were finished", n)
	}
}

// One that drains is no reason not to start another.
func downAndUp(t *testing.T, bed Bed) {
	p, stop := bed.Open(t)
	defer stop()
	set(t, p, 1)
	settled(t, bed, p, 1)
	finish := bed.Busy(t, bed.Running(t)[0])
	set(t, p, 0)
	eventually(t, "it drains", func() bool { return count(t, p).Draining == 1 })
	set(t, p, 2)
	eventually(t, "two more", func() bool { c := count(t, p); return c.Ready == 2 && c.Draining == 1 })
	finish()
	settled(t, bed, p, 2)
}

func crash(t *testing.T, bed Bed) {
	p, stop := bed.Open(t)
	defer stop()
	set(t, p, 2)
	settled(t, bed, p, 2)
	victim := bed.Running(t)[0]
	bed.Kill(t, victim)
	eventually(t, "another in its place", func() bool {
		return count(t, p).Ready == 2 && len(bed.Running(t)) == 2 && !slices.Contains(bed.Running(t), victim)
	})
}

// After a restart there are as many as are asked for then, and none is left over.
func restart(t *testing.T, bed Bed) {
	p, stop := bed.Open(t)
	set(t, p, 2)
	settled(t, bed, p, 2)
	stop()
	p, stop = bed.Open(t)
	defer stop()
	set(t, p, 3)
	settled(t, bed, p, 3)
	set(t, p, 1)
	settled(t, bed, p, 1)
}

func crashOfScaler(t *testing.T, bed Bed) {
	p, _ := bed.Open(t)
	set(t, p, 2)
	settled(t, bed, p, 2)
	finish := bed.Busy(t, bed.Running(t)[0])
	bed.Crash(t)
	p, stop := bed.Open(t)
	defer stop()
	set(t, p, 1)
	finish()
	settled(t, bed, p, 1)
	if n := bed.Finished(t); n != 1 {
		t.Errorf("what was in flight when the scaler crashed was finished %d times, want once", n)
	}
}

func nonsense(t *testing.T, bed Bed) {
	p, stop := bed.Open(t)
	defer stop()
	if err := p.Set(context.Background(), -1); err == nil {
		t.Error("-1 instances can be asked for")
	}
}
