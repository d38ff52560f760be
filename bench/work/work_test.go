package work

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestCountsOfBothLanguages runs the same work in Go and in Python: the driver reads the counters
// of both.
func TestCountsOfBothLanguages(t *testing.T) {
	dir := t.TempDir()
	for name, value := range map[string]string{"BENCH_COUNTS": dir, "BENCH_WORK": "cpu", "BENCH_SECONDS": "0.001", "BENCH_LATENCY": "1"} {
		t.Setenv(name, value)
	}
	job, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	sent := strconv.FormatInt(time.Now().Add(-time.Hour).UnixNano(), 10)
	before, err := ReadCounts(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := job.Do(t.Context(), []byte(sent+"xxx")); err != nil {
			t.Fatal(err)
		}
	}
	module := filepath.Join(t.TempDir(), "work.py")
	if err := os.WriteFile(module, Python, 0o600); err != nil {
		t.Fatal(err)
	}
	script := "import asyncio, work\nfor _ in range(4): work.job(b'" + sent + "xxx')\nasyncio.run(work.async_job('" + sent + "'))\n"
	python := exec.CommandContext(t.Context(), "python3", "-c", script)
	python.Dir = filepath.Dir(module)
	if out, err := python.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	after, err := ReadCounts(dir)
	if err != nil {
		t.Fatal(err)
	}
	if after.Started != 8 || after.Ended != 8 || after.OwnCalls < 16 {
		t.Errorf("started %d, ended %d, own calls %d; want 8, 8, and at least 2 for each", after.Started, after.Ended, after.OwnCalls)
	}
	latencies, err := ReadLatencies(dir, before)
	if err != nil || len(latencies) != 8 {
		t.Fatalf("%d latencies, %v; want 8", len(latencies), err)
	}
	for _, took := range latencies {
		if took < time.Hour || took > 2*time.Hour {
			t.Errorf("a message that was sent an hour ago has a latency of %v", took)
		}
	}
	if none, err := ReadLatencies(dir, after); err != nil || len(none) != 0 {
		t.Errorf("%d latencies after the last, %v", len(none), err)
	}
}

func TestLatenciesBeyondTheRing(t *testing.T) {
	dir := t.TempDir()
	own, err := openCounters(dir)
	if err != nil {
		t.Fatal(err)
	}
	before, err := ReadCounts(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range ringSize + 1 {
		own.latency(time.Second)
	}
	if _, err := ReadLatencies(dir, before); err == nil {
		t.Error("no error for latencies that were overwritten")
	}
}

func TestBodyHasItsTimeAndSize(t *testing.T) {
	before := time.Now().UnixNano()
	body := Body(128)
	sent, err := strconv.ParseInt(string(body[:stampSize]), 10, 64)
	if err != nil || sent < before || sent > time.Now().UnixNano() || len(body) != 128 {
		t.Errorf("%q: %v", body, err)
	}
	if small := Body(1); len(small) != stampSize {
		t.Errorf("a body of 1 byte has %d: it must have room for its time", len(small))
	}
}

func TestBodyWithoutTime(t *testing.T) {
	t.Setenv("BENCH_COUNTS", t.TempDir())
	t.Setenv("BENCH_SECONDS", "0")
	t.Setenv("BENCH_LATENCY", "1")
	job, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if err := job.Do(t.Context(), []byte("x")); err == nil {
		t.Error("no error for a body without a time")
	}
	t.Setenv("BENCH_SECONDS", "long")
	if _, err := FromEnv(); err == nil {
		t.Error("no error for BENCH_SECONDS=long")
	}
}
