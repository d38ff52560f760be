package bodymemory

import "testing"

func TestGCFollowsBodies(t *testing.T) {
	for _, c := range []struct {
		bodies, live int64
		least, most  int
	}{
		{0, 50 << 20, 100, 100},
		{1 << 20, 1 << 30, 100, 100},
		{600 << 20, 650 << 20, 20, 30},
		{600 << 20, 10 << 20, 20, 20}, // received since the last collection
		{100 << 20, 900 << 20, 90, 95},
	} {
		if got := gcPercent(c.bodies, c.live); got < c.least || got > c.most {
			t.Errorf("%d MiB of bodies, %d MiB alive: %d %%; wanted %d to %d", c.bodies>>20, c.live>>20, got, c.least, c.most)
		}
	}
}
