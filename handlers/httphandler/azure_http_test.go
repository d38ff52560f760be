package httphandler

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	nethttp "net/http"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// callContext is the context of a call whose function has the outputs receipts and audit.
type callContext struct {
	context.Context
	properties triggers.Properties
	sent       []string // NAME: body, and its content type
}

func (c *callContext) Value(key any) any {
	if key == handlers.DescribedKey {
		return c
	}
	return c.Context.Value(key)
}

func (c *callContext) Describe(properties triggers.Properties) { c.properties = properties }

func (c *callContext) Send(output string, body []byte, properties triggers.Properties) error {
	if output != "receipts" && output != "$return" {
		return fmt.Errorf("there is no output %s", output)
	}
	c.sent = append(c.sent, fmt.Sprintf("%s: %s %s", output, body, properties[triggers.ContentType]))
	return nil
}

// Each output binding gets its value, and values without a binding are dropped.
func TestNamedOutputsOfCustomHandlers(t *testing.T) {
	for _, test := range []struct {
		answer string
		want   []string
	}{
		{`{}`, nil},
		{`{"Outputs": {"receipts": "text", "other": "x"}, "ReturnValue": null}`, []string{"receipts: text "}},
		{`{"Outputs": {"receipts": {"id": 7}}}`, []string{`receipts: {"id": 7} application/json`}},
		{`{"Outputs": {"receipts": ["a", {"b": 1}, null, 2]}}`, []string{"receipts: a ", `receipts: {"b": 1} application/json`, "receipts: 2 "}},
		{`{"Outputs": {"receipts": "[1, 2]"}}`, []string{"receipts: [1, 2] application/json"}},
		{`{"Outputs": {"receipts": "", "$return": "not this"}, "ReturnValue": "this"}`, []string{"$return: this "}},
	} {
		url := app(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { _, _ = io.WriteString(w, test.answer) })
		h := start(t, func(c *Config) {
			c.URL, c.Azure = url, &Azure{Binding: "b", Named: true, Outputs: []string{"receipts", "$return"}}
		})
		ctx := &callContext{Context: t.Context()}
		out, err := h.Handle(ctx, &triggers.Message{Body: []byte("x")})
		if err != nil || out != nil || strings.Join(ctx.sent, "|") != strings.Join(test.want, "|") {
			t.Errorf("%s: %q, sent %q, %v; want %q", test.answer, out, ctx.sent, err, test.want)
		}
	}
}

// Outside of a function app, values that are not for a named output are the function's result.
func TestNamedOutputsBesideTheResult(t *testing.T) {
	for _, test := range []struct{ answer, sent, output string }{
		{`{}`, "", ""},
		{`{"Outputs": {"receipts": ["a", "b"], "other": "x"}}`, "receipts: a |receipts: b ", "x"},
		{`{"Outputs": {"receipts": "a"}}`, "receipts: a ", ""},
		{`{"Outputs": {"receipts": "a"}, "ReturnValue": {"id": 7}}`, "receipts: a ", `{"id": 7}`},
		{`{"Outputs": {"other": 1, "more": 2}}`, "", `{"more":2,"other":1}`},
	} {
		url := app(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { _, _ = io.WriteString(w, test.answer) })
		h := start(t, func(c *Config) { c.URL, c.Azure = url, &Azure{Binding: "b", Outputs: []string{"receipts"}} })
		ctx := &callContext{Context: t.Context()}
		out, err := h.Handle(ctx, &triggers.Message{Body: []byte("x")})
		if err != nil || string(out) != test.output || strings.Join(ctx.sent, "|") != test.sent {
			t.Errorf("%s: %q, sent %q, %v; want %q and %q", test.answer, out, ctx.sent, err, test.output, test.sent)
		}
	}
}

// get returns an HTTP request as a message.
func get(method, body string) *triggers.Message {
	return &triggers.Message{
		ID: "1", Attempt: 1, Body: []byte(body), Subject: "/api/orders/7",
		Attributes: map[string]string{"Host": "shop.example", "Content-Type": "application/json", "X-Two": "a", "Connection": "keep-alive"},
		Repeated:   map[string][]string{"X-Two": {"a", "b"}},
		Origin:     request{triggers.HTTPMethod: method, triggers.HTTPURL: "http://shop.example/api/orders/7?x=1&x=2", triggers.HTTPQuery: "x=1&x=2", triggers.HTTPParams: `{"id":"7"}`},
	}
}

// request is the origin of a request.
type request triggers.Properties

func (r request) Native() map[string]any { return nil }

func (r request) Properties() triggers.Properties { return triggers.Properties(r) }

// A request that is not forwarded is described in the invocation, and its response is an output.
func TestARequestToACustomHandler(t *testing.T) {
	bodies := make(chan []byte, 1)
	answer := ""
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- body
		_, _ = io.WriteString(w, answer)
	})
	h := start(t, func(c *Config) {
		c.URL, c.Azure = url, &Azure{Binding: "req", Named: true, Reply: "res", Outputs: []string{"receipts"}}
	})
	for _, test := range []struct{ answer, body, status, headers, kind, err string }{
		{`{"Outputs": {"res": {"statusCode": 201, "body": "made", "headers": {"X-A": "1", "Set-Cookie": ["a=1", "b=2"]}}, "receipts": "r"}}`, "made", "201", `[["Set-Cookie","a=1"],["Set-Cookie","b=2"],["X-A","1"]]`, "", ""},
		{`{"Outputs": {"res": {"StatusCode": "404", "Body": {"error": 1}}}}`, `{"error": 1}`, "404", "", "application/json", ""},
		{`{"Outputs": {"res": "plain"}}`, "plain", "200", "", "", ""},
		{`{"Outputs": {"res": {"status": 204}}}`, "", "204", "", "", ""},
		{`{"Outputs": {"res": {"other": true}}}`, `{"other": true}`, "200", "", "application/json", ""},
		{`{"Outputs": {"res": {"statusCode": "soon"}}}`, "", "", "", "", `the status "soon", which is not a number`},
	} {
		answer = test.answer
		ctx := &callContext{Context: t.Context()}
		out, err := h.Handle(ctx, get("POST", `{"a": 1}`))
		invocation := <-bodies
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v", test.answer, err)
			}
			continue
		}
		p := ctx.properties
		if err != nil || out == nil || string(out) != test.body || p[triggers.HTTPStatus] != test.status || p[triggers.HTTPHeaders] != test.headers || p[triggers.ContentType] != test.kind {
			t.Errorf("%s: %q, %v, %v", test.answer, out, p, err)
		}
		var got struct {
			Data map[string]struct {
				Url, Method, Body string
				Query, Params     map[string]string
				Headers           map[string][]string
			}
			Metadata map[string]any
		}
		if err := json.Unmarshal(invocation, &got); err != nil {
			t.Fatalf("%v: %s", err, invocation)
		}
		r := got.Data["req"]
		if r.Method != "POST" || r.Url != "http://shop.example/api/orders/7?x=1&x=2" || r.Query["x"] != "1,2" || r.Params["id"] != "7" || r.Body != `{"a": 1}` || len(r.Headers["X-Two"]) != 2 {
			t.Errorf("the request is %+v", r)
		}
		if got.Metadata["id"] != `"7"` || got.Metadata["sys"] == nil || got.Metadata["DequeueCount"] != nil {
			t.Errorf("the metadata are %v", got.Metadata)
		}
	}
	binary := get("PUT", "\xff\x00")
	answer = "{}"
	if _, err := h.Handle(&callContext{Context: t.Context()}, binary); err != nil {
		t.Error(err)
	}
	if text := <-bodies; !strings.Contains(string(text), `"Body":"/wA="`) {
		t.Errorf("a body that is no text: %s", text)
	}
}

// With enableForwardingHttpRequest the app gets the unchanged request, and its response is passed on.
func TestAForwardedRequest(t *testing.T) {
	type seen struct {
		line   string
		body   string
		header nethttp.Header
	}
	requests := make(chan seen, 1)
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- seen{r.Method + " " + r.RequestURI, string(body), r.Header}
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("Content-Type", "text/x")
		w.WriteHeader(nethttp.StatusTeapot)
		_, _ = io.WriteString(w, "short and stout")
	})
	h := start(t, func(c *Config) {
		c.URL, c.Function, c.Azure = url, "orders", &Azure{Binding: "req", Named: true, Reply: "res", Forward: true}
		c.MaxResponse = 15
	})
	ctx := &callContext{Context: t.Context()}
	out, err := h.Handle(ctx, get("DELETE", "body"))
	if err != nil || string(out) != "short and stout" || ctx.properties[triggers.HTTPStatus] != "418" {
		t.Fatalf("%q, %v, %v", out, ctx.properties, err)
	}
	if text := ctx.properties[triggers.HTTPHeaders]; !strings.Contains(text, `["Content-Type","text/x"]`) || !strings.Contains(text, `["Set-Cookie","a=1"],["Set-Cookie","b=2"]`) || strings.Contains(text, "Content-Length") {
		t.Errorf("the headers are %s", text)
	}
	got := <-requests
	if got.line != "DELETE /api/orders/7?x=1&x=2" || got.body != "body" {
		t.Errorf("the request is %+v", got)
	}
	if len(got.header.Get("X-Azure-Functions-InvocationId")) != 36 || got.header.Get("Content-Type") != "application/json" || len(got.header["X-Two"]) != 2 || got.header.Get("Connection") != "" {
		t.Errorf("the headers are %v", got.header)
	}
	h.cfg.MaxResponse = 14
	if _, err := h.Handle(&callContext{Context: t.Context()}, get("GET", "")); err == nil || !strings.Contains(err.Error(), "max_response (14)") {
		t.Errorf("a response that is too long: %v", err)
	}
	<-requests
}
