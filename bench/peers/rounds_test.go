package peers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/bench/load"
)

// TestAContenderThatFails checks that it is named and left out, and that the others are measured in
// each round.
func TestAContenderThatFails(t *testing.T) {
	r := &rounds{n: 3}
	var order []string
	left, err := r.measure(t.Context(), "1ms", []load.Contender{{Name: "drover"}, {Name: "taskiq"}, {Name: "Huey"}}, func(of load.Contender) error {
		order = append(order, of.Name)
		if of.Name == "taskiq" {
			return errors.New("its broker ended")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "drover taskiq Huey Huey drover Huey drover"; strings.Join(order, " ") != want {
		t.Errorf("order %q, want %q", order, want)
	}
	var names []string
	for _, of := range left {
		names = append(names, of.Name)
	}
	if !slices.Equal(names, []string{"drover", "Huey"}) {
		t.Errorf("left are %q", names)
	}
	if err := r.end(); err == nil || !strings.Contains(err.Error(), "taskiq (1ms)") {
		t.Errorf("the end reports %v", err)
	}
}

func TestAnInterruptEndsTheRounds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := &rounds{n: 3}
	calls := 0
	_, err := r.measure(ctx, "1ms", []load.Contender{{Name: "drover"}, {Name: "taskiq"}}, func(load.Contender) error {
		calls++
		cancel()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) || calls != 1 || r.end() != nil {
		t.Errorf("%d calls, error %v, at the end %v", calls, err, r.end())
	}
}
