package httptrigger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/httptrigger"
)

func TestARequestIsAMessageAndTheResultIsTheResponse(t *testing.T) {
	b := newBed(t)
	trigger := b.open("orders", "api/orders/{id:int}/{part?}", func(c *httptrigger.Config) {
		c.Headers = map[string]string{"x-one": "common", "X-Common": "common"}
	})
	var received atomic.Pointer[triggers.Message]
	b.serve(trigger, func(d *triggers.Delivery) {
		received.Store(d.Message)
		reply(t, d, []byte("<ok>"), triggers.Properties{
			triggers.HTTPStatus:  "201",
			triggers.HTTPHeaders: `[["set-cookie","a=1"],["Set-Cookie","b=2"],["X-One","1"],["connection","upgrade"],["content-length","999"]]`,
			triggers.ContentType: "text/html",
		})
	})
	got := b.do("POST", "/API/orders/17?code=x&q=a%20b", "body", "X-Two", "1", "X-Two", "2", "Traceparent", "00-1-2-01", "X-Functions-Key", "mine")
	if got.status != 201 || got.body != "<ok>" || got.header.Get("Content-Type") != "text/html" || got.header.Get("X-One") != "1" ||
		fmt.Sprint(got.header.Values("Set-Cookie"), got.header["X-One"], got.header["X-Common"]) != "[a=1 b=2] [1] [common]" || got.header.Get("Connection") != "" || got.header.Get("Content-Length") != "4" {
		t.Errorf("%+v", got)
	}
	m := received.Load()
	if string(m.Body) != "body" || m.Attempt != 1 || m.Subject != "/API/orders/17" || m.Enqueued.IsZero() ||
		!regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(m.ID) {
		t.Errorf("%+v", m)
	}
	if m.Attributes["X-Two"] != "1" || fmt.Sprint(m.Values("X-Two")) != "[1 2]" || m.Attributes["Host"] != b.server.Address() || m.Attributes["X-Functions-Key"] != "mine" {
		t.Errorf("attributes %v, repeated %v", m.Attributes, m.Repeated)
	}
	if parent, _ := m.Trace(); parent != "00-1-2-01" {
		t.Errorf("traceparent %q", parent)
	}
	want := triggers.Properties{
		triggers.HTTPMethod: "POST", triggers.HTTPURL: b.url("/API/orders/17?code=x&q=a%20b"), triggers.HTTPQuery: "code=x&q=a%20b",
		triggers.HTTPParams: `{"id":"17"}`, triggers.HTTPRemote: "127.0.0.1",
	}
	if fmt.Sprint(m.Properties()) != fmt.Sprint(want) {
		t.Errorf("properties %v", m.Properties())
	}
}

func TestVerdictsAreResponses(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		name   string
		end    func(d *triggers.Delivery)
		status int
		body   string
	}{
		{"nothing", func(d *triggers.Delivery) { reply(t, d, nil, nil) }, 204, ""},
		{"empty", func(d *triggers.Delivery) { reply(t, d, []byte{}, nil) }, 200, ""},
		{"binary", func(d *triggers.Delivery) { reply(t, d, []byte{0xff}, nil) }, 200, "\xff"},
		{"status", func(d *triggers.Delivery) { reply(t, d, nil, triggers.Properties{triggers.HTTPStatus: "404"}) }, 404, ""},
		{"done", func(d *triggers.Delivery) { settle(t, d, triggers.Done) }, 204, ""},
		{"retry", func(d *triggers.Delivery) { settle(t, d, triggers.Retry) }, 500, "the function failed\n"},
		{"reject", func(d *triggers.Delivery) { settle(t, d, triggers.Reject) }, 500, "the function failed\n"},
		{"release", func(d *triggers.Delivery) { settle(t, d, triggers.Release) }, 503, "the function could not run\n"},
		{"fails after the reply", func(d *triggers.Delivery) {
			if err := d.Replier().Reply(context.Background(), []byte("replied"), nil); err != nil {
				t.Error(err)
			}
			settle(t, d, triggers.Reject)
		}, 200, "replied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			trigger := b.open(c.name, strings.ReplaceAll(c.name, " ", "-"))
			b.serve(trigger, c.end)
			got := b.do("GET", "/"+strings.ReplaceAll(c.name, " ", "-"), "")
			if got.status != c.status || got.body != c.body {
				t.Errorf("%+v", got)
			}
			if (got.header.Get("Retry-After") != "") != (c.status == 503) {
				t.Errorf("Retry-After %q with %d", got.header.Get("Retry-After"), got.status)
			}
			if kind := got.header.Get("Content-Type"); c.name == "binary" && kind != "application/octet-stream" || c.name == "empty" && kind != "text/plain; charset=utf-8" {
				t.Errorf("Content-Type %q", kind)
			}
		})
	}
}

// If a header could contain a line break, a function's input could add headers, or a whole second
// response.
func TestResponsesThatAreWrong(t *testing.T) {
	b := newBed(t)
	for name, c := range map[string]struct {
		properties triggers.Properties
		want       string
	}{
		"injection":    {triggers.Properties{triggers.HTTPHeaders: `[["X-A","1\r\nSet-Cookie: evil=1"]]`}, "line break"},
		"name":         {triggers.Properties{triggers.HTTPHeaders: `[["X A\r\n","1"]]`}, "not the name of a header"},
		"content type": {triggers.Properties{triggers.ContentType: "text/plain\nX: 1"}, "line break"},
		"no list":      {triggers.Properties{triggers.HTTPHeaders: `{"a":"b"}`}, "not a list of pairs"},
		"status":       {triggers.Properties{triggers.HTTPStatus: "100"}, "not a status"},
		"status text":  {triggers.Properties{triggers.HTTPStatus: "OK"}, "not a status"},
	} {
		t.Run(name, func(t *testing.T) {
			trigger := b.open(name, "x")
			b.serve(trigger, func(d *triggers.Delivery) {
				err := d.Replier().Reply(context.Background(), nil, c.properties)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				settle(t, d, triggers.Reject)
			})
			if got := b.do("GET", "/x", ""); got.status != 500 || len(got.header.Values("Set-Cookie")) > 0 {
				t.Errorf("%+v", got)
			}
			_ = trigger.Close(t.Context())
		})
	}
}

func TestAClientThatDisconnects(t *testing.T) {
	b := newBed(t)
	trigger := b.open("orders", "orders")
	// while the function runs
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", b.url("/orders"), strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		res, err := b.client.Do(r)
		if err == nil {
			_ = res.Body.Close()
		}
		ended <- err
	}()
	d := receive(t, trigger)
	revoked := make(revocation)
	d.OnRevoked(revoked)
	cancel()
	<-revoked
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	reply(t, d, []byte("nobody reads this"), nil) // it is no error
	// while it waits: it is never received
	conn := b.raw("GET /orders HTTP/1.1\r\nHost: x\r\n\r\n")
	waitFor(t, func() bool { return trigger.WaitingCount() == 1 })
	_ = conn.Close()
	waitFor(t, func() bool { return trigger.WaitingCount() == 0 })
}

func TestAStream(t *testing.T) {
	b := newBed(t)
	trigger := b.open("orders", "orders")
	res := make(chan *http.Response, 1)
	ask := func() {
		r, err := http.NewRequestWithContext(t.Context(), "GET", b.url("/orders"), http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		got, err := b.client.Do(r) //nolint:bodyclose // the reader of res closes it
		if err != nil {
			t.Error(err)
		}
		res <- got
	}
	var cancel context.CancelFunc // of the call
	begin := func() (io.WriteCloser, *triggers.Delivery, *http.Response) {
		go ask()
		d := receive(t, trigger)
		to, ok := d.Replier().(triggers.StreamReplier)
		if !ok {
			t.Fatal("it cannot stream")
		}
		ctx, end := context.WithCancel(t.Context())
		cancel = end
		w, err := to.ReplyStream(ctx, triggers.Properties{triggers.HTTPStatus: "206", triggers.HTTPHeaders: `[["X-A","1"]]`})
		if err != nil {
			t.Fatal(err)
		}
		got := <-res // the headers come before the first part
		if got == nil || got.StatusCode != 206 || got.Header.Get("X-A") != "1" {
			t.Fatalf("%+v", got)
		}
		return w, d, got
	}
	w, d, got := begin()
	part := make([]byte, 5)
	for i := range 3 {
		text := fmt.Sprintf("part%d", i)
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(got.Body, part); err != nil || string(part) != text { // before the next is written
			t.Fatalf("%q, %v", part, err)
		}
	}
	cancel() // the call ends before its reply
	if err := errors.Join(w.Close(), d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Done})); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(got.Body); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	_ = got.Body.Close()
	if _, err := io.WriteString(w, "late"); err == nil {
		t.Error("a part after the end is accepted")
	}

	// A function that fails in the middle: the client can tell.
	w, d, got = begin()
	if _, err := io.WriteString(w, "part0"); err != nil {
		t.Fatal(err)
	}
	settle(t, d, triggers.Reject)
	if text, err := io.ReadAll(got.Body); err == nil {
		t.Errorf("a response that is cut short looks whole: %q", text)
	}
	_ = got.Body.Close()

	// A client that reads nothing, until the call ends.
	w, d, got = begin()
	written := make(chan error, 1)
	go func() {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				written <- err
				return
			}
		}
	}()
	cancel()
	if err := <-written; err == nil {
		t.Error("it is written for ever")
	}
	settle(t, d, triggers.Reject)
	_ = got.Body.Close()

	// A client that disconnects in the middle.
	w, d, got = begin()
	revoked := make(revocation)
	d.OnRevoked(revoked)
	_ = got.Body.Close()
	<-revoked
	waitFor(t, func() bool { _, err := w.Write(bytes.Repeat([]byte("x"), 1<<10)); return err != nil })
	settle(t, d, triggers.Reject)
}
