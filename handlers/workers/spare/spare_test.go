package spare

import (
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// settled is a pool that has all of its workers.
var settled = Pool{Wanted: true, Settled: true, PIDs: []int{os.Getpid()}}

var errRefused = errors.New("no process")

// newKeeper returns a Keeper whose workers do not start, and the number of starts.
func newKeeper(fits func(uint64) bool) (k *Keeper, starts *int) {
	starts = new(int)
	return New(Config{
		Start: func() (*worker.Worker, error) { *starts++; return nil, errRefused }, After: 2 * time.Second, StartTimeout: time.Minute,
		Fits: fits, Changed: func() {}, Log: slog.New(slog.DiscardHandler),
	}), starts
}

// The spare worker starts when the pool has had all of its workers for a while.
func TestItWaitsUntilThePoolIsSettled(t *testing.T) {
	k, starts := newKeeper(nil)
	now := time.Now()
	busy := settled
	busy.Settled = false
	if next := k.Step(now, busy); !next.IsZero() || *starts != 0 {
		t.Errorf("a pool without all of its workers: %v, %d starts", next, *starts)
	}
	if next := k.Step(now, settled); next != now.Add(2*time.Second) || *starts != 0 {
		t.Errorf("a settled pool: %v, %d starts", next.Sub(now), *starts)
	}
	k.Step(now.Add(time.Second), busy)
	if next := k.Step(now.Add(time.Second), settled); next != now.Add(3*time.Second) || *starts != 0 {
		t.Errorf("settled again: %v, %d starts", next.Sub(now), *starts)
	}
	now = now.Add(3 * time.Second)
	delay := time.Duration(0)
	for n := 1; n <= 20; n++ { // one that cannot start is tried later and later
		next := k.Step(now, settled)
		if delay = next.Sub(now); *starts != n || delay <= 0 || delay > 2*maxDelay {
			t.Fatalf("%d starts, want %d; the next in %v", *starts, n, delay)
		}
		if again := k.Step(now.Add(delay-1), settled); again != next || *starts != n {
			t.Fatalf("it started too early: %d starts", *starts)
		}
		now = next
	}
	if delay < maxDelay/2 {
		t.Errorf("after 20 failures the next start is in %v", delay)
	}
	if k.Take() != nil || k.IsReady() {
		t.Error("there is a spare worker")
	}
	k.Stop()
	if next := k.Step(now.Add(time.Hour), settled); !next.IsZero() || *starts != 20 {
		t.Errorf("after Stop: %v, %d starts", next, *starts)
	}
}

// Memory that is short is checked again.
func TestMemoryIsShort(t *testing.T) {
	allowed := false
	k, starts := newKeeper(func(memory uint64) bool { return allowed && memory > 0 })
	defer k.Stop()
	now := time.Now()
	k.Step(now, settled)
	now = now.Add(2 * time.Second)
	for range 3 {
		next := k.Step(now, settled)
		if next != now.Add(checkMemoryEvery) || *starts != 0 {
			t.Fatalf("the next check is in %v, %d starts", next.Sub(now), *starts)
		}
		now = next
	}
	allowed = true
	if k.Step(now, settled); *starts != 1 {
		t.Errorf("%d starts when memory allows it", *starts)
	}
}

// startSilent returns a function that starts a worker that never answers.
func startSilent(t *testing.T, changed chan struct{}) func() (*worker.Worker, error) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	reaper := childproc.New(log)
	t.Cleanup(reaper.Close)
	starter := process.Starter{Command: process.Command{Path: "sleep", Args: []string{"600"}}, Reaper: reaper, Log: log}
	group := worker.NewGroup(worker.Config{
		Log: log, Settings: func() worker.Settings { return worker.Settings{} }, RoomChanged: func() {},
		Changed: func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
	})
	return func() (*worker.Worker, error) {
		proc, err := starter.Start()
		if err != nil {
			return nil, err
		}
		w := group.NewWorker(proc)
		return w, w.BeginHandshake(false)
	}
}

// A spare worker that does not load the code in time is killed, and replaced later. One that is not
// wanted any more is stopped.
func TestOneThatDoesNotLoad(t *testing.T) {
	changed := make(chan struct{}, 1)
	k := New(Config{
		Start: startSilent(t, changed), After: time.Nanosecond, StartTimeout: time.Minute, Changed: func() {}, Log: slog.New(slog.DiscardHandler),
	})
	now := time.Now()
	k.Step(now, settled)
	now = time.Now()
	next := k.Step(now, settled)
	w := k.spare
	if w == nil || next != w.Started.Add(time.Minute) || k.IsReady() {
		t.Fatalf("%v, %v", w, next)
	}
	k.Step(next, settled)
	<-w.Gone
	<-changed
	if w.Cause != process.CauseStart {
		t.Errorf("it ended by %v: %v", w.Cause, w.Reason)
	}
	if k.Take() != nil {
		t.Error("a dead worker is spare")
	}
	due := k.Step(next, settled)
	if !due.After(next) || k.spare != nil {
		t.Errorf("the next start is in %v", due.Sub(next))
	}
	k.Step(due, settled)
	second := k.spare
	if second == nil {
		t.Fatal("there is no second one")
	}
	if k.Return(w) {
		t.Error("a dead worker was returned")
	}
	k.Drop(func(*worker.Worker) bool { return false })
	if taken := k.Take(); taken != second {
		t.Errorf("%v was taken, not the one that loads", taken)
	}
	second.Kill(process.CauseStart, errRefused)
	second.Wait()
	k.Step(due, settled)
	k.Step(due.Add(time.Second), settled)
	third := k.spare
	if third == nil {
		t.Fatal("there is no third one")
	}
	k.Step(due.Add(time.Second), Pool{})
	if k.spare != nil {
		t.Error("one that is not wanted stays")
	}
	k.Stop()
	<-third.Gone
}
