package httphandler

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	nethttp "net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// origin has the source's own fields.
type origin map[string]any

func (o origin) Native() map[string]any { return o }

func (o origin) Properties() triggers.Properties { return nil }

// A custom handler gets the same request as from the host of Azure Functions.
func TestACustomHandler(t *testing.T) {
	type seen struct {
		path   string
		header nethttp.Header
		body   []byte
	}
	got := make(chan seen, 1)
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.URL.Path, r.Header, body}
		_, _ = io.WriteString(w, `{"Outputs": {"res": "unused"}, "Logs": ["one \u001b[31m", 2, null], "ReturnValue": {"ok": true}}`)
	})
	var log bytes.Buffer
	h := start(t, func(c *Config) {
		c.URL, c.Function, c.Azure = url, "Orders", &Azure{Binding: "myQueueItem"}
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := &triggers.Message{
		ID: "7", Body: []byte(`{"a": "<b>"}`), Attempt: 2, Attributes: map[string]string{"traceparent": "00-a-b-01", "Customer": "42"},
		Origin: origin{"Id": "7", "DequeueCount": int64(3), "InsertionTime": at, "ApplicationProperties": map[string]any{"n": int64(1), "s": "x"}},
	}
	out, err := h.Handle(t.Context(), m)
	if err != nil || string(out) != `{"ok": true}` {
		t.Errorf("%q, %v", out, err)
	}
	s := <-got
	if id := s.header.Get("X-Azure-Functions-InvocationId"); s.path != "/Orders" || len(id) != 36 || s.header.Get("X-Azure-Functions-HostVersion") == "" {
		t.Errorf("the path is %s, the headers %v", s.path, s.header)
	}
	if s.header.Get("Traceparent") != "00-a-b-01" || s.header.Get("Drover-Attempt") != "2" || !strings.HasPrefix(s.header.Get("Content-Type"), "application/json") {
		t.Errorf("the headers are %v", s.header)
	}
	var body struct {
		Data     map[string]string
		Metadata map[string]json.RawMessage
	}
	if err := json.Unmarshal(s.body, &body); err != nil {
		t.Fatal(err)
	}
	if got := body.Data["myQueueItem"]; got != `"{\"a\": \"<b>\"}"` {
		t.Errorf("the message is %s", got)
	}
	for name, want := range map[string]string{
		"Id": `"\"7\""`, "DequeueCount": `"3"`, "InsertionTime": `"2026-01-02T03:04:05+00:00"`, "ApplicationProperties": `{"n":1,"s":"x"}`,
	} {
		if got := string(body.Metadata[name]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	var sys struct {
		MethodName, RandGuid string
		UtcNow               time.Time
	}
	if err := json.Unmarshal(body.Metadata["sys"], &sys); err != nil || sys.MethodName != "Orders" || len(sys.RandGuid) != 36 || time.Since(sys.UtcNow) > time.Hour {
		t.Errorf("sys is %s, %v", body.Metadata["sys"], err)
	}
	if text := log.String(); !strings.Contains(text, `msg="one \x1b[31m" message=7 invocation=`) || !strings.Contains(text, "msg=2 message=7") {
		t.Errorf("the log is %s", text)
	}
}

// A source that Azure does not have is treated like a storage queue.
func TestTheInvocationOfAnotherSource(t *testing.T) {
	now := time.Now()
	body, err := (&Azure{Binding: "b"}).encodeInvocation("f", &triggers.Message{ID: "ORDERS:7", Attempt: 1, Body: []byte("hi"), Enqueued: now, Attributes: map[string]string{"k": "v"}}, now)
	for _, want := range []string{`"Data":{"b":"\"hi\""}`, `"Id":"\"ORDERS:7\""`, `"DequeueCount":"1"`, `"InsertionTime":"`, `"ApplicationProperties":{"k":"v"}`} {
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%v: %s, want %s in it", err, body, want)
		}
	}
	raw := &triggers.Message{Body: []byte{0xff, 0}}
	if body, err = (&Azure{Binding: "b", Binary: true}).encodeInvocation("f", raw, now); err != nil || !strings.Contains(string(body), `"Data":{"b":"/wA="}`) {
		t.Errorf("binary: %s, %v", body, err)
	}
	object := &triggers.Message{Body: []byte(`{"IsPastDue": false}`)}
	if body, err = (&Azure{Binding: "b", JSON: true}).encodeInvocation("f", object, now); err != nil || !strings.Contains(string(body), `"Data":{"b":{"IsPastDue":false}}`) {
		t.Errorf("json: %s, %v", body, err)
	}
	if body, err = (&Azure{Binding: "b", JSON: true}).encodeInvocation("f", raw, now); err == nil {
		t.Errorf("bytes where JSON is meant: %s", body)
	}
	h := start(t, func(c *Config) { c.URL, c.Azure = "http://127.0.0.1:1/", &Azure{Binding: "b"} })
	if _, err := h.Handle(t.Context(), raw); !handlers.Rejected(err) || !strings.Contains(err.Error(), "data_type: binary") {
		t.Errorf("bytes where a text is meant: %v", err)
	}
}

func TestAnswersOfCustomHandlers(t *testing.T) {
	for _, c := range []struct{ output, answer, want, err string }{
		{"", `{}`, "", ""},
		{"", ` {"ReturnValue": "text"}`, "text", ""},
		{"", `{"returnvalue": 7}`, "7", ""},
		{"", `{"ReturnValue": null, "Outputs": {"a": null, "b": "one"}}`, "one", ""},
		{"", `{"ReturnValue": "", "Outputs": null, "Logs": null}`, "", ""},
		{"", `{"Outputs": {"b": [1], "a": "x"}}`, `{"a":"x","b":[1]}`, ""},
		{"b", `{"Outputs": {"b": [1], "a": "x"}, "ReturnValue": 1}`, `[1]`, ""},
		{"c", `{"Outputs": {"b": [1]}, "ReturnValue": 1}`, "", ""},
		{"$return", `{"Outputs": {"b": 1}}`, "", ""},
		{"", ``, "", "not the JSON object"},
		{"", `null`, "", "not the JSON object"},
		{"", `"done"`, "", "not the JSON object"},
		{"", `{"Outputs": 1}`, "", "not that of a custom handler"},
		{"", `{"Outputs"`, "", "not that of a custom handler"},
	} {
		result, err := decodeResponse([]byte(c.answer))
		var out []byte
		if err == nil {
			out, err = (&Azure{Output: c.output}).chooseOutput(result)
		}
		if string(out) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || out != nil && len(out) == 0 {
			t.Errorf("%s of %s: %q, %v", c.output, c.answer, out, err)
		}
	}
}

// Like the host, drover treats everything except a 2xx with its JSON as a failed attempt. The
// meaning of a status can be configured, as without a custom handler.
func TestFailuresOfCustomHandlers(t *testing.T) {
	var status atomic.Int64
	var text atomic.Value
	url := app(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, text.Load().(string))
	})
	h := start(t, func(c *Config) {
		c.URL, c.Azure, c.Verdicts = url+"/api", &Azure{Binding: "b"}, map[int]Verdict{422: Reject}
	})
	room(t, h, 4)
	for _, c := range []struct {
		status int64
		text   string
		reject bool
	}{{400, "{}", false}, {404, "{}", false}, {302, "{}", false}, {500, "{}", false}, {200, "", false}, {200, "done", false}, {422, "", true}} {
		status.Store(c.status)
		text.Store(c.text)
		_, err := h.Handle(t.Context(), &triggers.Message{ID: "1"})
		if err == nil || handlers.Rejected(err) != c.reject || errors.Is(err, handlers.ErrNotTried) || h.Slots().Capacity() != 4 {
			t.Errorf("%d %s: %v", c.status, c.text, err)
		}
	}
}

func TestLogsAreBounded(t *testing.T) {
	var log bytes.Buffer
	h := &Handler{cfg: Config{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	lines := make([]json.RawMessage, maxLogs+5)
	for i := range lines {
		lines[i] = json.RawMessage(`"line"`)
	}
	lines[0] = json.RawMessage(`"` + strings.Repeat("x", longestLog+5) + `"`)
	h.logLines(&triggers.Message{ID: "1"}, "i", lines)
	if n := strings.Count(log.String(), "\n"); n != maxLogs+1 || !strings.Contains(log.String(), "lines=1005") || strings.Contains(log.String(), strings.Repeat("x", longestLog+1)) {
		t.Errorf("%d lines", n)
	}
}
