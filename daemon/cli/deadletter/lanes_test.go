package deadletter

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// A function that waits delays the later ones of its key, and no others.
func TestLanes(t *testing.T) {
	var l lanes
	var mu sync.Mutex
	got := make(map[string][]int)
	release := make(chan struct{})
	for i := range 100 {
		key := fmt.Sprint(i % 4)
		l.startLane(key, func() {
			if i == 0 {
				<-release // the first key waits; the others continue
			}
			mu.Lock()
			defer mu.Unlock()
			got[key] = append(got[key], i)
			if len(got["1"])+len(got["2"])+len(got["3"]) == 75 && len(got["0"]) == 0 {
				close(release)
			}
		})
	}
	l.waitAll()
	for key, all := range got {
		if len(all) != 25 || !slices.IsSorted(all) {
			t.Errorf("key %s: %v", key, all)
		}
	}
}
