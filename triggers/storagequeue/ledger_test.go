package storagequeue

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTheLedger(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger")
	l, err := OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	far := time.Now().Add(time.Hour)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := l.set("q", fmt.Sprint("m", i), i, far); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(l.set("q", "over", 3, time.Now().Add(-time.Hour)), l.forget("q", "m5"), l.forget("none", "m5")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLedger(path); !errors.Is(err, ErrLedgerInUse) || !strings.Contains(err.Error(), "data_dir") {
		t.Errorf("a second one: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLedger(t, path)
	for id, want := range map[string]int{"m7": 7, "m5": 0, "over": 0, "never": 0} {
		if n, err := l.failures("q", id); err != nil || n != want {
			t.Errorf("%s has failed %d times (%v), want %d", id, n, err, want)
		}
	}
	if n, err := l.failures("other", "m7"); err != nil || n != 0 {
		t.Errorf("in another queue: %d, %v", n, err)
	}
	bad := filepath.Join(t.TempDir(), "bad")
	write(t, bad, bytes.Repeat([]byte("no ledger"), 4096))
	if _, err := OpenLedger(bad); err == nil || !strings.Contains(err.Error(), "remove the file to start over") {
		t.Errorf("a file that is none: %v", err)
	}
	if _, err := OpenLedger(filepath.Join(t.TempDir(), "no", "such")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a directory that is missing: %v", err)
	}
}

// Both bounds apply to a message: the number of its failures, and of its deliveries.
func TestAttempts(t *testing.T) {
	for _, test := range []struct {
		most               int64
		failures, dequeued int
		want               int
	}{
		{100, 0, 1, 1}, {100, 0, 50, 1}, {100, 3, 50, 4},
		{100, 0, 96, 1}, {100, 0, 97, 2}, {100, 0, 100, 5}, {100, 4, 97, 5},
		{5, 0, 1, 1}, {5, 0, 4, 4}, {5, 1, 5, 5}, // as the Azure Functions host counts
		{0, 0, 1000, 1},
	} {
		tr := &shared{cfg: Config{MaxAttempts: 5, MaxDequeueCount: test.most}}
		if got := tr.attempt(test.failures, int64(test.dequeued)); got != test.want {
			t.Errorf("max_dequeue_count %d, %d failures, delivered %d times: attempt %d, want %d", test.most, test.failures, test.dequeued, got, test.want)
		}
	}
}
