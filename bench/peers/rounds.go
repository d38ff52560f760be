package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/drover-run/drover/bench/load"
)

// rounds measures contenders in turns. One that fails is named, and left out of the rest of its row.
type rounds struct {
	n      int
	failed []string // contenders with their rows
}

// measure calls do once a round for each contender, in an order that turns, and returns those that
// did not fail. Only the end of ctx ends it early.
func (r *rounds) measure(ctx context.Context, row string, contenders []load.Contender, do func(load.Contender) error) ([]load.Contender, error) {
	failed := make(map[string]error)
	for round := range r.n {
		for i := range contenders {
			of := contenders[(i+round)%len(contenders)]
			if failed[of.Name] != nil {
				continue
			}
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s\n", row, round+1, r.n, of.Name)
			err := do(of)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				fmt.Printf("\n%s failed, and is left out of this row: %v\n", of.Name, err)
				failed[of.Name] = err
			}
		}
	}
	for _, of := range contenders {
		if failed[of.Name] != nil {
			r.failed = append(r.failed, of.Name+" ("+row+")")
		}
	}
	return slices.DeleteFunc(slices.Clone(contenders), func(of load.Contender) bool { return failed[of.Name] != nil }), nil
}

// end returns an error that names the contenders that failed.
func (r *rounds) end() error {
	if len(r.failed) == 0 {
		return nil
	}
	return errors.New("these failed, and are left out of their rows: " + strings.Join(r.failed, "; "))
}
