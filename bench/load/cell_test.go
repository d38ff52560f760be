package load

import (
	"runtime"
	"testing"
	"time"
)

func TestIdeal(t *testing.T) {
	cores := float64(runtime.NumCPU())
	for _, c := range []struct {
		cell       Cell
		ideal      float64
		impossible bool
		name       string
	}{
		{Cell{Work: CPU, Size: 128}, 0, false, "no-op, 128 B, full queue"},
		{Cell{Work: CPU, Time: time.Millisecond, Size: 10_000}, 1000 * cores, false, "cpu 1ms, 10 kB, full queue"},
		{Cell{Work: CPU, Time: time.Millisecond, Size: 128, Rate: 50}, 50, false, "cpu 1ms, 128 B, 50/s"},
		{Cell{Work: CPU, Time: time.Second, Size: 128, Rate: 50 * runtime.NumCPU()}, cores, true, ""},
		{Cell{Work: Wait, Time: 100 * time.Millisecond, Size: 256_000}, 10 * InFlight, false, "wait 100ms, 256 kB, full queue"},
	} {
		if ideal := c.cell.Ideal(); ideal != c.ideal {
			t.Errorf("%s: ideal %v, want %v", c.cell, ideal, c.ideal)
		}
		if c.cell.Impossible() != c.impossible {
			t.Errorf("%s: impossible is %v", c.cell, c.cell.Impossible())
		}
		if c.name != "" && c.cell.String() != c.name {
			t.Errorf("%q, want %q", c.cell, c.name)
		}
	}
}

func TestFillFor(t *testing.T) {
	for _, c := range []struct {
		cell     Cell
		inFlight int
		want     int
	}{
		{Cell{Work: CPU, Size: 128}, 0, 1200},                                            // as fast as the contender
		{Cell{Work: Wait, Time: 100 * time.Second, Size: 128}, 0, 100},                   // at least
		{Cell{Work: CPU, Size: 10_000_000}, 0, maxFill / 10_000_000},                     // in bytes
		{Cell{Work: Wait, Time: 20 * time.Second, Size: 128}, 0, 100},                    // 50 a second
		{Cell{Work: Wait, Time: 2 * time.Second, Size: 128}, 0, int(1.2 * InFlight / 2)}, // 500 a second
		{Cell{Work: Wait, Time: 2 * time.Second, Size: 128}, 1500, 900},                  // 750 a second
		{Cell{Work: Wait, Time: 100 * time.Millisecond, Size: 128}, 0, 1200},             // the contender is slower
	} {
		if n := c.cell.fillFor(Contender{Fastest: 1000, InFlight: c.inFlight}, time.Second); n != c.want {
			t.Errorf("%s: %d messages, want %d", c.cell, n, c.want)
		}
	}
}
