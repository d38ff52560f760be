package httphandler

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// rawApp serves connections byte by byte: serve returns the answer to each request; n is the number
// of the request on its connection. An empty answer ends the connection.
func rawApp(t *testing.T, serve func(n int, request *nethttp.Request) string) (url string, seen func() int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = c.Close() }()
				in := bufio.NewReader(c)
				for n := 1; ; n++ {
					r, err := nethttp.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					requests.Add(1)
					answer := serve(n, r)
					if strings.Contains(answer, "X-End") {
						holdUntilClose(c) // no request arrives between the answer and the end of the connection
					}
					if _, err := io.WriteString(c, answer); err != nil || answer == "" || strings.Contains(answer, "X-End") {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return "http://" + l.Addr().String(), requests.Load
}

// quick starts a handler that stops before the app does.
func quick(t *testing.T, url string) *Handler {
	t.Helper()
	h := start(t, func(c *Config) { c.URL = url })
	room(t, h, 4)
	return h
}

const well = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// An app that closes a kept connection just as it is reused has not seen the request. The request
// is sent again on another connection, without using an attempt.
func TestConnectionsThatCloseAsTheyAreUsed(t *testing.T) {
	url, seen := rawApp(t, func(int, *nethttp.Request) string {
		return strings.Replace(well, "\r\n\r\n", "\r\nX-End: without a word\r\n\r\n", 1)
	})
	h := quick(t, url)
	const n = 300
	for i := range n {
		if out, err := h.Handle(t.Context(), &triggers.Message{ID: fmt.Sprint(i)}); err != nil || string(out) != "ok" {
			t.Fatalf("%d: %q, %v", i, out, err)
		}
	}
	if seen() != n {
		t.Errorf("the app has seen %d requests, want %d", seen(), n)
	}
}

// An app that has read a request may have acted on it, so the request is not sent again here.
func TestAConnectionThatEndsAfterTheRequest(t *testing.T) {
	url, seen := rawApp(t, func(n int, _ *nethttp.Request) string {
		if n == 1 {
			return well
		}
		return ""
	})
	h := quick(t, url)
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err != nil {
		t.Fatal(err)
	}
	_, err := h.Handle(t.Context(), &triggers.Message{ID: "2"})
	if kindOf(err) != Retry || !errors.Is(err, io.ErrUnexpectedEOF) || seen() != 2 {
		t.Errorf("%v, and the app has seen %d requests", err, seen())
	}
}

// Idle connections that the app has closed, or on which it has sent more data, are not used.
func TestKeptConnectionsAreLookedAt(t *testing.T) {
	for name, more := range map[string]string{"closed": "X-End: yes\r\n", "more": ""} {
		url, seen := rawApp(t, func(n int, _ *nethttp.Request) string {
			return strings.Replace(well, "\r\n\r\n", "\r\n"+more+"\r\n", 1)
		})
		h := quick(t, url)
		if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err != nil {
			t.Fatal(err)
		}
		p := h.client.plain
		p.mu.Lock()
		if len(p.idle) != 1 {
			t.Fatalf("%s: %d connections are kept", name, len(p.idle))
		}
		kept := p.idle[0]
		kept.last = time.Now().Add(-idleLimit) // it lay for long
		p.mu.Unlock()
		if name == "closed" {
			tick := time.NewTicker(time.Millisecond)
			for deadline := time.Now().Add(patience); !peerClosed(kept.Conn) && time.Now().Before(deadline); {
				<-tick.C
			}
			tick.Stop()
			if c := p.takeIdle(); c != nil {
				t.Error("a closed connection is used")
			}
		} else {
			if peerClosed(kept.Conn) {
				t.Error("an open connection counts as closed")
			}
			p.closeOld()
			if len(p.idle) != 0 || p.sweep != nil {
				t.Error("an old connection is kept")
			}
		}
		if _, err := h.Handle(t.Context(), &triggers.Message{ID: "2"}); err != nil || seen() != 2 {
			t.Errorf("%s: %v, the app has seen %d", name, err, seen())
		}
	}
}

func TestOddAnswers(t *testing.T) {
	for _, c := range []struct{ name, answer, out, err string }{
		{"interim", "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + well, "ok", ""},
		{"many interim", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10_000) + well, "", "1xx"},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", ""},
		{"until the end", "HTTP/1.0 200 OK\r\nX-End: yes\r\n\r\nok", "ok", ""},
		{"closing", strings.Replace(well, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1), "ok", ""},
		{"more than the answer", well + "HTTP/1.1 500 Evil\r\n\r\n", "ok", ""},
		{"no HTTP", "SSH-2.0-OpenSSH\r\nX-End\r\n\r\n", "", "reading the answer"},
		{"half a header", "HTTP/1.1 200 OK\r\nX-End", "", "reading the answer"},
		{"half a body", "HTTP/1.1 200 OK\r\nX-End: 1\r\nContent-Length: 9\r\n\r\nhalf", "", "EOF"},
		{"half a chunk", "HTTP/1.1 200 OK\r\nX-End: 1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "", "EOF"},
		{"headers without end", "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", longestPlainHeader) + "\r\n\r\n", "", "bytes of headers"},
		{"10 GB", "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\nbegin", "", "more than max_response"},
	} {
		url, _ := rawApp(t, func(int, *nethttp.Request) string { return c.answer })
		h := quick(t, url)
		for range 2 {
			out, err := h.Handle(t.Context(), &triggers.Message{ID: "1"})
			if string(out) != c.out || (err == nil) != (c.err == "") || err != nil && (kindOf(err) != Retry || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%s: %q, %v", c.name, out, err)
			}
		}
	}
}

// An app may answer before it has read the whole request, and close the connection.
func TestAnEarlyAnswer(t *testing.T) {
	url := app(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(413) })
	h := quick(t, url)
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1", Body: make([]byte, 32<<20)}); !handlers.Rejected(err) {
		t.Errorf("%v", err)
	}
}

// There are as many connections as slots. They are kept, and none is left behind.
func TestConnectionsAreKept(t *testing.T) {
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	s.Config.ConnState = func(_ net.Conn, state nethttp.ConnState) {
		if state == nethttp.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	const slots = 8
	h := start(t, func(c *Config) { c.URL, c.Slots = s.URL, slots })
	room(t, h, slots)
	var all sync.WaitGroup
	for range slots {
		all.Go(func() {
			for range 50 {
				if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1", Body: bytes.Repeat([]byte("x"), 10_000)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := opened.Load(); n > slots+1 { // one to look for the app
		t.Errorf("%d connections were opened for %d slots", n, slots)
	}
}

// A request ends with its context, and its connection is not used again.
func TestARequestThatIsCutShort(t *testing.T) {
	came, answer := make(chan struct{}, 1), make(chan string, 1)
	url, seen := rawApp(t, func(int, *nethttp.Request) string { came <- struct{}{}; return <-answer })
	h := quick(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() { _, err := h.Handle(ctx, &triggers.Message{ID: "1"}); got <- err }()
	<-came
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	answer <- strings.Replace(well, "ok", "no", 1) // too late
	answer <- well
	if out, err := h.Handle(t.Context(), &triggers.Message{ID: "2"}); err != nil || string(out) != "ok" || seen() != 2 {
		t.Errorf("%q, %v", out, err)
	}
}

// interruptible is a context like the dispatcher's: no goroutine waits for its deadline.
type interruptible struct {
	context.Context
	deadline time.Time
	hook     chan func()
}

func (i *interruptible) Deadline() (time.Time, bool) { return i.deadline, true }
func (i *interruptible) OnInterrupt(f func()) func() bool {
	i.hook <- f
	return func() bool { return true }
}

func (i *interruptible) Err() error {
	if !time.Now().Before(i.deadline) {
		return context.DeadlineExceeded
	}
	return i.Context.Err()
}

func TestTheDispatchersContext(t *testing.T) {
	came, answer := make(chan struct{}, 9), make(chan string, 9)
	url, _ := rawApp(t, func(int, *nethttp.Request) string { came <- struct{}{}; return <-answer })
	h := quick(t, url)
	under, cancel := context.WithCancel(t.Context())
	ctx := &interruptible{under, time.Now().Add(patience), make(chan func(), 9)}
	got := make(chan error, 1)
	handle := func() { _, err := h.client.postRequest(ctx, nil, nil); got <- err }
	answer <- well
	handle()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	<-came
	<-ctx.hook

	ctx.deadline = time.Now().Add(20 * time.Millisecond)
	handle()
	if err := <-got; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at the deadline: %v", err)
	}
	<-came
	<-ctx.hook
	answer <- ""

	ctx.deadline = time.Now().Add(patience)
	go handle()
	<-came
	cancel()
	(<-ctx.hook)()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	answer <- ""
}

func TestHeadersOfTheConfiguration(t *testing.T) {
	got := make(chan *nethttp.Request, 1)
	url := app(t, func(_ nethttp.ResponseWriter, r *nethttp.Request) { got <- r })
	for _, two := range []bool{false, true} {
		h := start(t, func(c *Config) {
			c.URL, c.Headers = url+"/a%20b?c=d", map[string]string{"host": "orders.example", "content-type": "text/x", "X-Key": "k"}
			if two {
				c.Batch = &Batch{Max: 1, MaxBytes: 1}
			}
		})
		if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1", Body: []byte("b")}); err != nil {
			t.Fatal(err)
		}
		r := <-got
		if r.Host != "orders.example" || r.Header.Get("X-Key") != "k" || len(r.Header.Values("Content-Type")) != 1 || r.Header.Get("Content-Type") != "text/x" || r.RequestURI != "/a%20b?c=d" {
			t.Errorf("%s %s %v", r.Host, r.RequestURI, r.Header)
		}
	}
}
