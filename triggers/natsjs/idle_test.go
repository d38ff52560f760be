package natsjs

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestAnIdleConsumerCostsNothing lets a consumer idle: it requests messages without heartbeats. A
// message that arrives later is kept alive.
func TestAnIdleConsumerCostsNothing(t *testing.T) {
	t.Parallel()
	c := connect(t, startServer(t, t.TempDir()))
	asked := make(chan string, 16)
	sub, err := c.Conn().Subscribe("$JS.API.CONSUMER.MSG.NEXT.>", func(m *nats.Msg) { asked <- string(m.Data) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	tr := open(t, c, testConfig(t)).(*trigger)
	nothing(t, tr, time.Millisecond)
	if request := <-asked; strings.Contains(request, "heartbeat") || !strings.Contains(request, "expires") {
		t.Error("it asks for heartbeats:", request)
	}
	waitFor(t, "the keeper to rest", tr.idle.Load)
	send(t, c, "orders.x", "a")
	d := receive(t, tr, 1)[0]
	if tr.idle.Load() {
		t.Error("it rests with a message in flight")
	}
	nothing(t, tr, 2*lease) // it would come again if nobody kept it alive
	done(t, d)
}
