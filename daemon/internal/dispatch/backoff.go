package dispatch

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Retry is how failed messages are retried: after Initial, then twice that, and so on up to Max.
// Each delay is varied at random by up to the fraction Jitter. When the last attempt fails, the
// message is rejected.
type Retry struct {
	MaxAttempts  int
	Initial, Max time.Duration
	Jitter       float64 // 0 to 1
}

// retryDelay returns the delay after the failure of an attempt, the first being 1: exponential,
// with jitter, at most retry.Max.
func retryDelay(retry Retry, attempt int) time.Duration {
	b := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(retry.Initial),
		backoff.WithMaxInterval(retry.Max),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(retry.Jitter),
		backoff.WithMaxElapsedTime(0),
	)
	var delay time.Duration
	for range attempt {
		delay = b.NextBackOff()
	}
	return min(delay, retry.Max)
}

// waitFor waits for d, or until ctx ends.
func waitFor(ctx context.Context, d time.Duration) {
	sleep := time.NewTimer(d)
	defer sleep.Stop()
	select {
	case <-sleep.C:
	case <-ctx.Done():
	}
}

// newBackOff returns the delays between receives that fail: 100 ms to 10 s, without an end.
func newBackOff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(10*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
}
