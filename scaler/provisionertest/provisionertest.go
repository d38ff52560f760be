// Package provisionertest is the conformance suite for provisioners; each runs it against real
// instances.
package provisionertest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/drover-run/drover/scaler"
)

// Bed is the environment of the instances, with the operations that the suite needs.
type Bed interface {
	// Open returns a provisioner for the environment, and a function that stops the scaler with
	// it. It is called again after a stop, as after a restart of the scaler.
	Open(t *testing.T) (p scaler.Provisioner, stop func())
	// Crash kills the scaler's process; it replaces the stop.
	Crash(t *testing.T)
	// Running returns the names of the running instances, including draining ones, in any
	// order.
	Running(t *testing.T) []string
	// Busy starts work in an instance that ends when finish is called.
	Busy(t *testing.T, name string) (finish func())
	// Finished returns how many calls of Busy an instance completed.
	Finished(t *testing.T) int
	// Kill ends an instance as a crash would.
	Kill(t *testing.T, name string)
}

const (
	patience = time.Minute
	pace     = 5 * time.Millisecond
)

// Run runs the suite; make returns a new Bed.
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

// settled waits until n instances are ready, and no others exist.
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

// Idle instances stop first; a busy one finishes its messages.
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
		t.Errorf("%v are left, %v of them busy", left, busy)
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

// A draining instance does not prevent the start of another.
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

// After a restart exactly the requested number runs.
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
