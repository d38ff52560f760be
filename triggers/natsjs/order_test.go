package natsjs

import (
	"strconv"
	"testing"
)

// Messages arrive in the order of the stream, regardless of pending requests.
func TestMessagesArriveInTheOrderOfTheStream(t *testing.T) {
	t.Parallel()
	for _, prefetch := range []int{0, 16, PrefetchAuto} {
		t.Run(strconv.Itoa(prefetch), func(t *testing.T) {
			c := connect(t, startServer(t, t.TempDir()))
			cfg := testConfig(t)
			cfg.Prefetch = prefetch
			tr := open(t, c, cfg)
			bodies := make([]string, 10_000)
			for i := range bodies {
				bodies[i] = strconv.Itoa(i)
			}
			send(t, c, "orders.x", bodies...)
			for next := 0; next < len(bodies); {
				got, err := tr.Receive(t.Context(), 1+next%13)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range got {
					if string(d.Message.Body) != bodies[next] {
						t.Fatalf("message %s came when it was the turn of %d", d.Message.Body, next)
					}
					next++
				}
				done(t, got...)
			}
		})
	}
}
