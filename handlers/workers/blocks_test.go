package workers

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers/worker"
)

func block(function, place string, took time.Duration) worker.BlockReport {
	return worker.BlockReport{Block: worker.Block{Function: function, Place: place, Time: took, Over: true}}
}

// A function is quarantined for its third long block within a minute.
func TestBlocksThatCount(t *testing.T) {
	start := time.Now()
	for name, test := range map[string]struct {
		function string
		took     []time.Duration
		at       []time.Duration // since start
		want     bool
	}{
		"three within a minute": {"f", []time.Duration{leastCounted, leastCounted, leastCounted}, []time.Duration{0, time.Second, blockWindow}, true},
		"two":                   {"f", []time.Duration{leastCounted, leastCounted}, []time.Duration{0, time.Second}, false},
		"one is short":          {"f", []time.Duration{leastCounted, leastCounted - 1, leastCounted}, []time.Duration{0, 1, 2}, false},
		"one is old":            {"f", []time.Duration{leastCounted, leastCounted, leastCounted}, []time.Duration{0, time.Second, blockWindow + 1}, false},
		"three after an old one": {"f", []time.Duration{leastCounted, leastCounted, leastCounted, leastCounted},
			[]time.Duration{0, blockWindow, blockWindow + 1, blockWindow + 2}, true},
		"of no function": {"", []time.Duration{leastCounted, leastCounted, leastCounted}, []time.Duration{0, 1, 2}, false},
	} {
		var b blocks
		often := false
		var sum time.Duration
		for i, took := range test.took {
			b.addBlock(block("other", "o", leastCounted), start.Add(test.at[i])) // counts for itself
			often = b.addBlock(block(test.function, "p", took), start.Add(test.at[i]))
			sum += took
		}
		if often != test.want {
			t.Errorf("%s: %v", name, often)
		}
		if got := b.byFunction()[test.function]; got.Times != int64(len(test.took)) || got.Time != sum || got.Place != "p" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Each place is logged once, for each function.
func TestBlocksAreLoggedOnce(t *testing.T) {
	var out bytes.Buffer
	var b blocks
	report := func(function, place string) {
		r := block(function, place, time.Second)
		r.Log = slog.New(slog.NewTextHandler(&out, nil))
		b.logFirst(r)
	}
	report("f", "a.py:1")
	report("f", "a.py:1")
	report("f", "a.py:2")
	report("g", "a.py:1")
	report("", garbage)
	if n := strings.Count(out.String(), "level=WARN"); n != 4 {
		t.Errorf("%d lines, want 4:\n%s", n, out.String())
	}
	for _, want := range []string{"function=f", "function=g", "the event loop is blocked", "gc.freeze()"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
