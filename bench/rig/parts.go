package rig

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Part is one of a command's.
type Part struct {
	Name string
	Run  func(context.Context) error
}

// RunParts runs one of the parts, or all.
func RunParts(ctx context.Context, only string, parts ...Part) error {
	for _, p := range parts {
		if only == "all" || only == p.Name {
			if err := p.Run(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Until returns when so is true, or ctx ends. It checks every millisecond.
func Until(ctx context.Context, so func() bool) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("it did not come to that: %w", ctx.Err())
		}
	}
	return nil
}

// Pause waits for a time, or until ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func Pick[T any](so bool, a, b T) T {
	if so {
		return a
	}
	return b
}

func Median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
