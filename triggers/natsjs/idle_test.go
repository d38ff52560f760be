package natsjs

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestAnIdleConsumerCostsNothing has a consumer rest while nothing is in flight, ask for messages
// without heartbeats, and keep a message alive that comes later.
func TestAnIdleConsumerCostsNothing(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	asked := make(chan string, 16)
	sub, err := c.nc.Subscribe("$JS.API.CONSUMER.MSG.NEXT.>", func(m *nats.Msg) { asked <- string(m.Data) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	tr := open(t, c, testConfig(t)).(*trigger)
	nothing(t, tr, time.Millisecond)
	if request := <-asked; strings.Contains(request, "heartbeat") || !strings.Contains(request, "expires") {
		t.Error("it asks for heartbeats:", request)
	}
	for deadline := time.Now().Add(patience); !tr.idle.Load(); {
		if time.Now().After(deadline) {
			t.Fatal("it never rests")
		}
		time.Sleep(10 * time.Millisecond) // no event marks it
	}
	send(t, c, "orders.x", "a")
	d := receive(t, tr, 1)[0]
	if tr.idle.Load() {
		t.Error("it rests with a message in flight")
	}
	nothing(t, tr, 2*lease) // it would come again if nobody kept it alive
	done(t, d)
}

// TestStopConsumerStores stops the stores of many consumers at once, and keeps their state.
func TestStopConsumerStores(t *testing.T) {
	dir := t.TempDir()
	e, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: dir, Listen: "off", Sync: time.Minute, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const consumers = 20
	for i := range consumers {
		cfg := testConfig(t)
		cfg.Consumer = "billing" + string(rune('a'+i))
		cfg.Stream, cfg.Subject = "ORDERS"+cfg.Consumer, cfg.Consumer+".x"
		tr := open(t, c, cfg)
		send(t, c, cfg.Subject, "settled", "waits")
		done(t, receive(t, tr, 1)...)
		if err := tr.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (n int) {
		for _, s := range streamsOf(e.server.Load().GlobalAccount()) {
			for range storeOf(s).Consumers() {
				n++
			}
		}
		return n
	}
	if n := left(); n != consumers {
		t.Fatalf("%d consumers have a store", n)
	}
	stopConsumerStores(e.server.Load())
	if n := left(); n != 0 {
		t.Errorf("the stores of %d consumers are not stopped", n)
	}
	_ = c.Close()
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = connect(t, startServer(t, dir))
	for i := range consumers {
		name := "billing" + string(rune('a'+i))
		consumer, err := c.js.Consumer(t.Context(), "ORDERS"+name, name)
		if err != nil {
			t.Fatal(err)
		}
		if info := consumer.CachedInfo(); info.AckFloor.Stream != 1 || info.NumPending+uint64(info.NumAckPending) != 1 {
			t.Errorf("consumer %s: %+v", name, info)
		}
	}
}
