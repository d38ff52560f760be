// Package work is what functions do with a message when systems are compared: they compute or wait
// for a time, and count. The driver sets it in the environment. work.py is the same in Python, and
// work.js in Node.js.
package work

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Python is the module work.
//
//go:embed work.py
var Python []byte

// JavaScript is the same for Node.js: a module with two functions.
//
//go:embed work.js
var JavaScript []byte

// Job is the work of each message.
type Job struct {
	waits     bool
	lasts     time.Duration
	latencies bool
	counters  counters

	lock sync.Mutex // for latencies
}

// FromEnv returns the work that the driver set in the environment.
func FromEnv() (*Job, error) {
	seconds, err := strconv.ParseFloat(os.Getenv("BENCH_SECONDS"), 64)
	if err != nil {
		return nil, fmt.Errorf("BENCH_SECONDS: %w", err)
	}
	_, latencies := os.LookupEnv("BENCH_LATENCY")
	w := &Job{waits: os.Getenv("BENCH_WORK") == "wait", lasts: time.Duration(seconds * float64(time.Second)), latencies: latencies}
	w.counters, err = openCounters(os.Getenv("BENCH_COUNTS"))
	return w, err
}

// Do does the work of one message. It is safe for concurrent use.
func (w *Job) Do(_ context.Context, body []byte) error {
	w.counters[startedWord].Add(1)
	if w.latencies {
		now := time.Now().UnixNano()
		sent, err := strconv.ParseInt(string(body[:min(stampSize, len(body))]), 10, 64)
		if err != nil {
			return fmt.Errorf("the time at which the message was sent: %w", err)
		}
		w.lock.Lock()
		w.counters.latency(time.Duration(now - sent))
		w.lock.Unlock()
	}
	switch {
	case w.lasts == 0:
	case w.waits:
		time.Sleep(w.lasts)
	default:
		w.burn()
	}
	w.counters[endedWord].Add(1)
	return nil
}

// burn uses CPU time of its thread. The system calls that read that clock are counted.
func (w *Job) burn() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	x := 0
	for start := w.threadTime(); w.threadTime()-start < w.lasts; {
		for i := range 5_000 {
			x ^= i
		}
	}
	runtime.KeepAlive(x)
}

func (w *Job) threadTime() time.Duration {
	w.counters[ownCallsWord].Add(1)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		panic(err) // the kernel has this clock
	}
	return time.Duration(now.Nano())
}
