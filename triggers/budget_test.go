package triggers

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func deliveries(sizes ...int) (out []*Delivery) {
	for _, n := range sizes {
		out = append(out, NewDelivery(&Message{Body: make([]byte, n)}, nil))
	}
	return out
}

func TestBudgetCountsBytes(t *testing.T) {
	b := NewBudget(1000)
	a := b.Open()
	if n := a.More(100, 0); n != 1 {
		t.Errorf("%d messages of an unknown size fit in 1000 bytes; it should be one", n)
	}
	a.Take(deliveries(100, 50))
	if n := a.More(100, 0); n != 8 {
		t.Errorf("%d messages of 100 bytes fit in 850", n)
	}
	if n := a.More(100, 5); n != 3 {
		t.Errorf("%d messages fit where 5 are to come", n)
	}
	if n := a.Within(250, 100, 1); n != 1 {
		t.Errorf("%d messages of 100 bytes fit in 250, where one is to come", n)
	}
	a.Hold(700, 100)
	if !a.Fits(150) || a.Fits(151) {
		t.Error("150 bytes are free")
	}
	if n := a.More(100, 0); n != 1 {
		t.Errorf("%d messages of 100 bytes fit in 150", n)
	}
	a.Hold(0, 0)
	a.Done(100)
	a.Done(50)
	if b.Used() != 0 || a.Used() != 0 {
		t.Errorf("%d bytes are left", b.Used())
	}
	a.Take(deliveries(2000))
	if n := a.More(1, 0); n != 0 || !a.Waits() {
		t.Errorf("%d fit when more than all is used", n)
	}
	a.Done(2000)
	if n := a.More(10, 0); n != 1 || a.Waits() {
		t.Errorf("%d messages of 2000 bytes fit in an empty budget of 1000; it should be one, alone", n)
	}
	a.Take(deliveries(10))
	a.Close()
	if b.Used() != 0 {
		t.Errorf("%d bytes are left of a closed account", b.Used())
	}
	if !a.Fits(2000) {
		t.Error("an empty budget has room for one message of any size")
	}
	var none *Account
	none.Take(deliveries(1))
	none.Hold(1, 1)
	none.Close()
	if none.Admit(5) != 5 || none.Wait(t.Context()) != nil || none.Waits() {
		t.Error("no budget is a bound")
	}
}

// TestBudgetHoldsAndIsFair shares a budget among functions with different message sizes: each gets
// some, and the total exceeds the limit by at most one message of each.
func TestBudgetHoldsAndIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		b := NewBudget(limit)
		sizes := []int{1 << 10, 64 << 10, 512 << 10, 900 << 10}
		done := make([]int, len(sizes))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		var running sync.WaitGroup
		most := int64(0)
		var mu sync.Mutex
		for i, size := range sizes {
			running.Go(func() {
				a := b.Open()
				defer a.Close()
				chance := rand.New(rand.NewPCG(1, uint64(i)))
				for a.Wait(ctx) == nil {
					n := a.Admit(64)
					if n == 0 {
						continue
					}
					var got []*Delivery
					for range n {
						got = append(got, deliveries(size)...)
					}
					a.Take(got)
					mu.Lock()
					most = max(most, b.Used())
					mu.Unlock()
					for _, d := range got {
						took := time.Duration(1+chance.Int64N(3)) * time.Second / 2
						running.Go(func() {
							time.Sleep(took)
							a.Done(len(d.Message.Body))
							mu.Lock()
							done[i]++
							mu.Unlock()
						})
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		running.Wait()
		if b.Used() != 0 {
			t.Errorf("%d bytes are left", b.Used())
		}
		if most > limit+1<<20+512<<10+64<<10 {
			t.Errorf("%d bytes were held at most, of %d", most, limit)
		}
		for i, n := range done {
			if n < 20 {
				t.Errorf("the function with messages of %d bytes has done %d in ten minutes; %v", sizes[i], n, done)
			}
		}
		t.Logf("done %v, at most %d bytes", done, most)
	})
}
