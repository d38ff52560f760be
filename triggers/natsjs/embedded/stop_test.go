package embedded

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, dir string) *Server {
	t.Helper()
	e, err := Start(t.Context(), Config{Dir: dir, Listen: "off", Sync: time.Minute, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func connect(t *testing.T, e *Server) (jetstream.JetStream, *nats.Conn) {
	t.Helper()
	closed := make(chan struct{})
	c, err := nats.Connect("", nats.InProcessServer(e), nats.Token(e.Token()), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); <-closed })
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return js, c
}

// TestStopConsumerStores stops the stores of many consumers at once, and keeps their state.
func TestStopConsumerStores(t *testing.T) {
	dir := t.TempDir()
	e := start(t, dir)
	js, c := connect(t, e)
	const consumers = 20
	name := func(i int) string { return "billing" + string(rune('a'+i)) }
	for i := range consumers {
		stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS" + name(i), Subjects: []string{name(i) + ".x"}, Retention: jetstream.WorkQueuePolicy})
		if err != nil {
			t.Fatal(err)
		}
		consumer, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: name(i), AckPolicy: jetstream.AckExplicitPolicy})
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{"settled", "waits"} {
			if _, err := js.Publish(t.Context(), name(i)+".x", []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		m, err := consumer.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.DoubleAck(t.Context()); err != nil {
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
	c.Close()
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	e = start(t, dir)
	js, c = connect(t, e)
	for i := range consumers {
		consumer, err := js.Consumer(t.Context(), "ORDERS"+name(i), name(i))
		if err != nil {
			t.Fatal(err)
		}
		if info := consumer.CachedInfo(); info.AckFloor.Stream != 1 || info.NumPending+uint64(info.NumAckPending) != 1 {
			t.Errorf("consumer %s: %+v", name(i), info)
		}
	}
	c.Close()
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// No token begins with a dash: a command would take it for a flag.
func TestTokens(t *testing.T) {
	seen := make(map[string]bool)
	for range 100 {
		path := filepath.Join(t.TempDir(), "token")
		token, err := keptToken(path)
		if err != nil || len(token) < 32 || seen[token] || strings.IndexFunc(token, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) >= 0 {
			t.Fatalf("the token is %q, %v", token, err)
		}
		seen[token] = true
		if again, err := keptToken(path); again != token || err != nil {
			t.Fatalf("the kept token is %q, %v; want %q", again, err, token)
		}
	}
}
