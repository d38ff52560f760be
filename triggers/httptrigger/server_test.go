package httptrigger_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/httptrigger"
	"github.com/drover-run/drover/triggers/httptrigger/keys"
)

func TestAPausedFunction(t *testing.T) {
	b := newBed(t)
	trigger := b.open("orders", "orders")
	waiting := b.inBackground("GET", "/orders", "")
	waitFor(t, func() bool { return trigger.WaitingCount() == 1 })
	trigger.Suspend("paused", time.Now().Add(90*time.Second))
	if got := <-waiting; got.status != 503 || got.header.Get("Retry-After") != "90" || got.body != "the function is paused\n" {
		t.Errorf("%+v", got)
	}
	if got := b.do("GET", "/orders", ""); got.status != 503 {
		t.Errorf("%+v", got)
	}
	trigger.Suspend("", time.Time{})
	b.serve(trigger, func(d *triggers.Delivery) { reply(t, d, nil, nil) })
	if got := b.do("GET", "/orders", ""); got.status != 204 {
		t.Errorf("%+v", got)
	}
}

func TestADrain(t *testing.T) {
	b := newBed(t)
	trigger := b.open("orders", "orders")
	other := b.open("other", "other")
	running := b.inBackground("GET", "/orders", "")
	d := receive(t, trigger)
	waiting := b.inBackground("GET", "/orders", "")
	late := b.inBackground("GET", "/orders", "")
	waitFor(t, func() bool { return trigger.WaitingCount() == 2 })
	got, err := trigger.Drain(t.Context(), 1)
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	if refused := b.do("GET", "/orders", ""); refused.status != 503 || !refused.closes {
		t.Errorf("%+v", refused)
	}
	reply(t, d, []byte("one"), nil)
	reply(t, got[0], []byte("two"), nil)
	if err := trigger.Close(t.Context()); err != nil { // the third was not received in time
		t.Error(err)
	}
	seen := make(map[string]int)
	for _, from := range []<-chan answer{running, waiting, late} {
		got := <-from
		seen[got.body] = got.status
	}
	if seen["one"] != 200 || seen["two"] != 200 || seen["the function is stopping\n"] != 503 {
		t.Errorf("%v", seen)
	}
	b.serve(other, func(d *triggers.Delivery) { reply(t, d, nil, nil) })
	if got := b.do("GET", "/other", ""); got.status != 204 {
		t.Errorf("the other function: %+v", got)
	}
	if _, err := other.Drain(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.server.Address()); err == nil {
		_ = conn.Close()
		t.Error("the server listens although all functions end")
	}
	again := b.open("again", "again") // a reload adds a function
	b.serve(again, func(d *triggers.Delivery) { reply(t, d, nil, nil) })
	if got := b.do("GET", "/again", ""); got.status != 204 {
		t.Errorf("%+v", got)
	}
}

// A reload opens the new trigger before it closes the old one.
func TestATriggerIsReplaced(t *testing.T) {
	b := newBed(t)
	old := b.open("orders", "orders")
	b.serve(old, func(d *triggers.Delivery) { reply(t, d, []byte("old"), nil) })
	if got := b.do("GET", "/orders", ""); got.body != "old" {
		t.Fatalf("%+v", got)
	}
	refused := b.open("orders", "moved")
	if got := b.do("GET", "/orders", ""); got.status != 404 {
		t.Errorf("%+v", got)
	}
	_ = refused.Close(t.Context()) // the reload failed
	if got := b.do("GET", "/orders", ""); got.body != "old" {
		t.Errorf("%+v", got)
	}
	next := b.open("orders", "orders")
	waiting := b.inBackground("GET", "/orders", "") // it waits until the new one runs
	waitFor(t, func() bool { return next.WaitingCount() == 1 })
	if _, err := old.Drain(t.Context(), 1); err != nil {
		t.Error(err)
	}
	_ = old.Close(t.Context())
	b.serve(next, func(d *triggers.Delivery) { reply(t, d, []byte("new"), nil) })
	if got := <-waiting; got.body != "new" {
		t.Errorf("%+v", got)
	}
}

func TestSeveralProcessesShareAPort(t *testing.T) {
	free := newBed(t)
	free.open("x", "x")
	address := free.server.Address()
	if _, err := httptrigger.Reserve(t.Context(), address); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("an address in use is reserved: %v", err)
	}
	if err := free.server.Close(); err != nil {
		t.Fatal(err)
	}
	reserved, err := httptrigger.Reserve(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reserved.Close() }()
	shared := func(c *httptrigger.ServerConfig) { c.Address, c.Shared = address, true }
	for _, name := range []string{"one", "two"} {
		b := newBed(t, shared)
		b.serve(b.open("orders", "orders"), func(d *triggers.Delivery) { reply(t, d, []byte(name), nil) })
	}
	if err := tryListen(t, address); err == nil {
		t.Error("a program that does not share the address may listen")
	}
	seen := make(map[string]bool)
	waitFor(t, func() bool { // the kernel distributes connections by their ports
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, "GET /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		seen[string(text[len(text)-3:])] = true
		return seen["one"] && seen["two"]
	})
}

func tryListen(t *testing.T, address string) error {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err == nil {
		_ = l.Close()
	}
	return err
}

func TestFunctionsAreRunByName(t *testing.T) {
	var got atomic.Pointer[triggers.Message]
	unready := errors.New("the function is stopping")
	b := newBed(t, func(c *httptrigger.ServerConfig) {
		c.Run = func(function string, d *triggers.Delivery) (bool, error) {
			if function == "stopping" {
				return true, unready
			}
			got.Store(d.Message)
			return function == "cleanup", d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Done})
		}
	})
	ring, err := keys.New(keys.Config{Master: "m", Default: "all"})
	if err != nil {
		t.Fatal(err)
	}
	b.open("web", "web", func(c *httptrigger.Config) { c.Access.Keys = ring })
	for _, c := range []struct {
		path, body, key string
		status          int
		input           string
	}{
		{"/admin/functions/cleanup", `{"input": "text"}`, "m", 202, "text"},
		{"/admin/functions/cleanup", `{"input": {"a": [1]}}`, "m", 202, `{"a": [1]}`},
		{"/admin/functions/cleanup", ``, "m", 202, ""},
		{"/admin/functions/cleanup", `{}`, "all", 401, ""},
		{"/admin/functions/cleanup", `{"input": `, "m", 400, ""},
		{"/admin/functions/none", `{}`, "m", 404, ""},
		{"/admin/functions/stopping", `{}`, "m", 503, ""},
		{"/admin/functions/cleanup", `{"input": "` + strings.Repeat("x", 1<<20) + `"}`, "m", 413, ""},
	} {
		got.Store(nil)
		res := b.do("POST", c.path, c.body, "x-functions-key", c.key)
		if res.status != c.status {
			t.Errorf("%s %.40s: %+v", c.path, c.body, res)
		}
		if m := got.Load(); c.status == 202 && (m == nil || string(m.Body) != c.input) {
			t.Errorf("%s: %+v", c.body, m)
		}
	}
	if res := b.do("GET", "/admin/functions/cleanup?code=m", ""); res.status != 405 || res.header.Get("Allow") != "POST" {
		t.Errorf("%+v", res)
	}
	// Without keys, the page of another site must not be able to run functions.
	open := newBed(t, func(c *httptrigger.ServerConfig) {
		c.Run = func(string, *triggers.Delivery) (bool, error) { return true, nil }
	})
	open.open("web", "web")
	if res := open.do("POST", "/admin/functions/x", `{}`); res.status != 202 {
		t.Errorf("%+v", res)
	}
	if res := open.do("POST", "/admin/functions/x", `{}`, "Origin", "http://evil.example"); res.status != 403 {
		t.Errorf("%+v", res)
	}
	if res := open.statusOf(open.raw("POST /admin/functions/x HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 2\r\n\r\n{}")); res != 403 {
		t.Error(res)
	}
}

// A connection stays open after a response with any status, so that clients can reuse it.
func TestConnectionsAreReused(t *testing.T) {
	b := newBed(t)
	b.serve(b.open("echo", "echo"), func(d *triggers.Delivery) {
		var headers [][2]string
		if d.Message.Attributes["X-Status"] == "201" {
			headers = append(headers, [2]string{"X-B", "c"})
		}
		text, _ := json.Marshal(headers)
		reply(t, d, d.Message.Body, triggers.Properties{triggers.HTTPStatus: d.Message.Attributes["X-Status"], triggers.HTTPHeaders: string(text)})
	})
	var requests strings.Builder
	statuses := []int{200, 201, 204, 304, 404, 500}
	for _, status := range statuses {
		fmt.Fprintf(&requests, "POST /echo HTTP/1.1\r\nHost: x\r\nX-Status: %d\r\nContent-Length: 5\r\n\r\n%05d", status, status)
	}
	requests.WriteString("PUT /none HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyz")
	read := bufio.NewReader(b.raw(requests.String()))
	for _, status := range append(statuses, 404) {
		res, err := http.ReadResponse(read, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != status {
			t.Errorf("%d: got %d %q, %v", status, res.StatusCode, text, err)
		}
		_ = res.Body.Close()
	}
}
