package work

import (
	"context"
	"strconv"
	"time"
)

// AtRate calls send with 1 to n, each at its time; at once if rate is 0.
func AtRate(ctx context.Context, n, rate int, send func(n int) error) error {
	start := time.Now()
	for i := 1; i <= n; i++ {
		if rate > 0 {
			select {
			case <-time.After(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate)))):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := send(i); err != nil {
			return err
		}
	}
	return nil
}

// stampSize is the length of the time at the start of a body.
const stampSize = 19

// Body returns a body of size bytes that starts with the present time.
func Body(size int) []byte {
	body := make([]byte, max(size, stampSize))
	for i := range body {
		body[i] = 'x'
	}
	copy(body, strconv.FormatInt(time.Now().UnixNano(), 10))
	return body
}
