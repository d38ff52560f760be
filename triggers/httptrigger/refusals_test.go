package httptrigger_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/httptrigger"
	"github.com/drover-run/drover/triggers/httptrigger/keys"
)

func TestRefusals(t *testing.T) {
	b := newBed(t)
	trigger := b.open("orders", "orders", func(c *httptrigger.Config) { c.Methods = []string{"GET", "POST"} })
	b.serve(trigger, func(d *triggers.Delivery) { reply(t, d, []byte("ran"), nil) })
	if got := b.do("GET", "/", ""); got.status != 200 || got.body != "drover is running\n" {
		t.Errorf("%+v", got)
	}
	if got := b.do("HEAD", "/", ""); got.status != 200 || got.body != "" {
		t.Errorf("%+v", got)
	}
	if got := b.do("GET", "/none", ""); got.status != 404 {
		t.Errorf("%+v", got)
	}
	if got := b.do("POST", "/admin/functions/orders", "{}"); got.status != 404 {
		t.Errorf("without Run: %+v", got)
	}
	if got := b.do("PUT", "/orders", "x"); got.status != 405 || got.header.Get("Allow") != "GET, POST" {
		t.Errorf("%+v", got)
	}
	if got := b.do("POST", "/orders", strings.Repeat("x", 1<<20)); got.status != 200 {
		t.Errorf("a body of the largest size: %+v", got)
	}
	if got, err := b.try("POST", "/orders", strings.NewReader(strings.Repeat("x", 1<<20+1))); err != nil || got.status != 413 {
		t.Errorf("%+v, %v", got, err)
	}
	chunked := io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), strings.NewReader("x"))
	if got, err := b.try("POST", "/orders", chunked); err != nil || got.status != 413 {
		t.Errorf("without a length: %+v, %v", got, err)
	}
	for _, target := range []string{"/orders/../orders", "/./orders", "/orders/%2e%2e/x", "/..", "/a%5cb", "/a%00b", "/a%0d%0ab"} {
		if got := b.statusOf(b.raw("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")); got != 400 {
			t.Errorf("%s: %d", target, got)
		}
	}
	if got := b.statusOf(b.raw("GET /.well-known/x HTTP/1.1\r\nHost: x\r\n\r\n")); got != 404 {
		t.Errorf("a name that begins with a dot: %d", got)
	}
	if got := b.statusOf(b.raw("GET /orders HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 64<<10) + "\r\n\r\n")); got != 431 {
		t.Errorf("large headers: %d", got)
	}
	if got := b.statusOf(b.raw("GET /orders HTTP/1.1\r\nHost: x\r\nX\r\n\r\n")); got != 400 {
		t.Errorf("a header without a value: %d", got)
	}
}

func TestBodiesThatDoNotArrive(t *testing.T) {
	b := newBed(t)
	trigger := b.open("orders", "orders", func(c *httptrigger.Config) { c.Limits.BodyTimeout = time.Millisecond })
	if got := b.statusOf(b.raw("POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")); got != 408 {
		t.Errorf("a client that stops: %d", got)
	}
	patient := b.open("patient", "patient")
	conn := b.raw("POST /patient HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := b.statusOf(conn); got != 400 {
		t.Errorf("half a body: %d", got)
	}
	for _, from := range []*httptrigger.Trigger{trigger, patient} {
		if backlog, err := from.Backlog(t.Context()); err != nil || backlog.Ready != 0 {
			t.Errorf("%+v, %v", backlog, err)
		}
	}
}

// A client that sends its headers too slowly is disconnected.
func TestHeadersThatDoNotArrive(t *testing.T) {
	b := newBed(t, func(c *httptrigger.ServerConfig) { c.HeaderTimeout = time.Millisecond })
	b.open("orders", "orders")
	conn := b.raw("GET /orders HTTP/1.1\r\nHost: x\r\nX-Slow")
	text, err := io.ReadAll(conn)
	// The system resets the connection if the server closes it before it has read what the client sent.
	if err != nil && !errors.Is(err, syscall.ECONNRESET) || strings.Contains(string(text), " 200 ") {
		t.Errorf("%q, %v", text, err)
	}
}

func TestKeys(t *testing.T) {
	ring, err := keys.New(keys.Config{Master: "m", Default: "all", Functions: map[string]string{"orders": "o"}})
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t)
	var received atomic.Pointer[triggers.Message]
	handle := func(d *triggers.Delivery) { received.Store(d.Message); reply(t, d, nil, nil) }
	withKeys := func(level keys.Level) func(*httptrigger.Config) {
		return func(c *httptrigger.Config) { c.Level, c.Access.Keys = level, ring }
	}
	b.serve(b.open("orders", "orders", withKeys(keys.Function)), handle)
	b.serve(b.open("admin", "only", withKeys(keys.Admin)), handle)
	b.serve(b.open("free", "free", withKeys(keys.Anonymous)), handle)
	for path, want := range map[string]int{
		"/orders": 401, "/orders?code=x": 401, "/orders?code=o": 204, "/orders?code=all": 204, "/orders?code=m": 204, "/orders?code=": 401,
		"/only?code=all": 401, "/only?code=m": 204, "/free": 204,
	} {
		if got := b.do("GET", path, ""); got.status != want {
			t.Errorf("%s: %d, want %d", path, got.status, want)
		}
	}
	if got := b.do("POST", "/orders?a=1&Code=zzz&b=2&c%6fde=o&code=o", "", "x-functions-key", "o"); got.status != 204 {
		t.Fatalf("%+v", got)
	}
	m := received.Load()
	if q := m.Property(triggers.HTTPQuery); q != "a=1&b=2" || m.Property(triggers.HTTPURL) != b.url("/orders?a=1&b=2") || m.Attributes["X-Functions-Key"] != "" {
		t.Errorf("a key is passed on: %v %v", m.Properties(), m.Attributes)
	}
	if got := b.do("GET", "/free?code=oauth", ""); got.status != 204 || received.Load().Property(triggers.HTTPQuery) != "code=oauth" {
		t.Errorf("an anonymous function has the parameter code as any other: %+v %v", got, received.Load().Properties())
	}
}

// Without keys, only a loopback address is open.
func TestWithoutKeys(t *testing.T) {
	b := newBed(t)
	open := b.open("open", "open", func(c *httptrigger.Config) { c.Level = keys.Function })
	shut := b.open("shut", "shut", func(c *httptrigger.Config) { c.Level, c.Access.Open = keys.Function, false })
	for _, from := range []*httptrigger.Trigger{open, shut} {
		b.serve(from, func(d *triggers.Delivery) { reply(t, d, nil, nil) })
	}
	if got := b.do("GET", "/open", ""); got.status != 204 {
		t.Errorf("%+v", got)
	}
	if got := b.do("GET", "/shut", ""); got.status != 401 {
		t.Errorf("%+v", got)
	}
	if notes := strings.Join(shut.Notes(), "; "); !strings.Contains(notes, "401") || !strings.Contains(notes, "/shut") {
		t.Error(notes)
	}
	if notes := strings.Join(open.Notes(), "; "); strings.Contains(notes, "401") {
		t.Error(notes)
	}
}

func TestLimits(t *testing.T) {
	b := newBed(t)
	trigger := b.open("orders", "orders", func(c *httptrigger.Config) { c.Limits.MaxOutstanding = 1 })
	first := b.inBackground("GET", "/orders", "")
	d := receive(t, trigger)
	if got := b.do("GET", "/orders", ""); got.status != 429 || got.header.Get("Retry-After") == "" {
		t.Errorf("%+v", got)
	}
	reply(t, d, nil, nil)
	if got := <-first; got.status != 204 {
		t.Errorf("%+v", got)
	}
	if got := fmt.Sprint(trigger.ResponseCounts()); got != "map[204:1 429:1]" {
		t.Errorf("counted: %s", got)
	}
	impatient := b.open("impatient", "impatient", func(c *httptrigger.Config) { c.Limits.QueueTimeout = time.Millisecond })
	if got := b.do("GET", "/impatient", ""); got.status != 503 || got.body != "the function is busy\n" {
		t.Errorf("%+v", got)
	}
	if n := impatient.WaitingCount(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// Bodies count against the daemon's budget while they are read, and while they wait.
func TestMemory(t *testing.T) {
	budget := triggers.NewBudget(100 << 10)
	account := budget.Open()
	b := newBed(t)
	trigger := b.open("orders", "orders", func(c *httptrigger.Config) { c.Memory = account })
	large := strings.Repeat("x", 90<<10)
	first := b.inBackground("POST", "/orders", large)
	waitFor(t, func() bool { return trigger.WaitingCount() == 1 })
	if used := budget.Used(); used != 90<<10 {
		t.Errorf("%d bytes are used", used)
	}
	if got, err := b.try("POST", "/orders", strings.NewReader(large)); err != nil || got.status != 503 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := b.try("POST", "/orders", io.MultiReader(strings.NewReader(large))); err != nil || got.status != 503 {
		t.Errorf("%+v, %v", got, err)
	}
	d := receive(t, trigger)
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes are counted by the trigger after the receipt", used)
	}
	reply(t, d, nil, nil)
	<-first
}
