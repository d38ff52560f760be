package dispatch

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Retry is how failed messages are retried: after Initial, then twice that, and so on up
// to Max, each time more or less by up to the part Jitter. The failure of the last attempt
// rejects the message.
type Retry struct {
	MaxAttempts  int
	Initial, Max time.Duration
	Jitter       float64 // 0 to 1
}

// retryDelay is the wait after the failure of an attempt, 1 being the first:
// exponential, spread by the jitter, at most retry.Max.
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

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	sleep := time.NewTimer(d)
	defer sleep.Stop()
	select {
	case <-sleep.C:
	case <-ctx.Done():
	}
}

// receiveBackOff paces what is tried again for ever: 100 ms to 10 s.
func receiveBackOff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(10*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
}
