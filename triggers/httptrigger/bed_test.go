package httptrigger_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/httptrigger"
	"github.com/drover-run/drover/triggers/httptrigger/keys"
	"github.com/drover-run/drover/triggers/httptrigger/routes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a server with its clients.
type bed struct {
	t      *testing.T
	server *httptrigger.Server
	client *http.Client
}

func newBed(t *testing.T, change ...func(*httptrigger.ServerConfig)) *bed {
	t.Helper()
	cfg := httptrigger.ServerConfig{Address: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	b := &bed{t: t, server: httptrigger.NewServer(cfg), client: &http.Client{Transport: new(http.Transport)}}
	t.Cleanup(func() {
		b.client.CloseIdleConnections()
		if err := b.server.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// open opens a trigger for a function with a route, without keys.
func (b *bed) open(function, route string, change ...func(*httptrigger.Config)) *httptrigger.Trigger {
	b.t.Helper()
	parsed, err := routes.Parse(route)
	if err != nil {
		b.t.Fatal(err)
	}
	ring, err := keys.New(keys.Config{})
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := httptrigger.Config{
		Function: function, Route: parsed, Level: keys.Anonymous, Access: httptrigger.Access{Keys: ring, Open: true},
		Limits: httptrigger.Limits{MaxBody: 1 << 20, QueueTimeout: time.Minute, BodyTimeout: time.Minute},
		Log:    slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	trigger, err := b.server.Open(b.t.Context(), cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := trigger.Close(context.Background()); err != nil {
			b.t.Error(err)
		}
	})
	return trigger
}

// serve calls do for each request of a trigger, on its own goroutine, until the test ends.
func (b *bed) serve(from *httptrigger.Trigger, do func(d *triggers.Delivery)) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	b.t.Cleanup(func() { cancel(); running.Wait() })
	running.Go(func() {
		for {
			got, err := from.Receive(ctx, 8)
			if err != nil {
				return
			}
			for _, d := range got {
				running.Go(func() { do(d) })
			}
		}
	})
}

// reply answers with a body and properties, and settles.
func reply(t *testing.T, d *triggers.Delivery, body []byte, properties triggers.Properties) {
	if err := d.Replier().Reply(context.Background(), body, properties); err != nil {
		t.Error(err)
	}
	settle(t, d, triggers.Done)
}

func settle(t *testing.T, d *triggers.Delivery, kind triggers.Kind) {
	if err := d.Settle(context.Background(), triggers.Verdict{Kind: kind}); err != nil {
		t.Error(err)
	}
}

func receive(t *testing.T, from *httptrigger.Trigger) *triggers.Delivery {
	t.Helper()
	got, err := from.Receive(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return got[0]
}

func (b *bed) url(path string) string { return "http://" + b.server.Address() + path }

// answer is the response that a client got.
type answer struct {
	status int
	body   string
	header http.Header
	closes bool // the connection
}

func (b *bed) do(method, path, body string, header ...string) answer {
	b.t.Helper()
	got, err := b.try(method, path, strings.NewReader(body), header...)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

func (b *bed) try(method, path string, body io.Reader, header ...string) (answer, error) {
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url(path), body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := b.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, string(text), res.Header, res.Close}, err
}

// raw sends text on a new connection, and returns the connection.
func (b *bed) raw(text string) *net.TCPConn {
	b.t.Helper()
	conn, err := new(net.Dialer).DialContext(b.t.Context(), "tcp", b.server.Address())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		b.t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

func (b *bed) statusOf(conn net.Conn) int {
	b.t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

type revocation chan struct{}

func (r revocation) LeaseRevoked() { close(r) }

// waitFor polls a condition that has no event.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("it did not happen")
		}
	}
}

// inBackground sends a request. The answer is available later.
func (b *bed) inBackground(method, path, body string) <-chan answer {
	out := make(chan answer, 1)
	go func() {
		got, err := b.try(method, path, strings.NewReader(body))
		if err != nil {
			got.body = err.Error()
		}
		out <- got
	}()
	return out
}
