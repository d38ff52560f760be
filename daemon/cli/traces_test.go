package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// The trace context of the senders in these tests.
const (
	traceID    = "0af7651916cd43dd8448eb211c80319c"
	parentSpan = "b7ad6b7169203331"
	sampled    = "00-" + traceID + "-" + parentSpan + "-01"
	unsampled  = "00-" + traceID + "-" + parentSpan + "-00"
)

// traced runs a daemon that sends its traces, and returns its log and a function that stops it.
func traced(t *testing.T, file string, funcs handlers.Funcs, env ...string) (out *printed, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out = newPrinted()
	ended := make(chan int, 1)
	lookup := func(name string) (string, bool) {
		for _, pair := range env {
			if n, value, _ := strings.Cut(pair, "="); n == name {
				return value, true
			}
		}
		return os.LookupEnv(name)
	}
	go func() {
		ended <- Command(ctx, []string{"run", file}, &IO{In: strings.NewReader(""), Out: out, Err: out, Env: lookup, Environ: os.Environ, Funcs: funcs})
	}()
	var once sync.Once
	status := -1
	stop = func() int {
		once.Do(func() { cancel(); status = <-ended })
		return status
	}
	t.Cleanup(func() { stop() })
	out.WaitFor(t, `"running"`)
	return out, stop
}

// sendIn sends messages to a function.
func sendIn(t *testing.T, file, function string, args ...string) {
	t.Helper()
	if status, out, errs := command(t.Context(), nil, nil, append([]string{"send", function, "-c", file}, args...)...); status != 0 {
		t.Fatalf("send: %s%s", out, errs)
	}
}

// has checks the kind and the attributes of a span.
func (s span) has(t *testing.T, kind tracepb.Span_SpanKind, want map[string]any) {
	t.Helper()
	if s.kind != kind {
		t.Errorf("%s is of the kind %v, want %v", s.name, s.kind, kind)
	}
	for name, value := range want {
		if got := s.about[name]; got != value {
			t.Errorf("%s: %s is %v, want %v", s.name, name, got, value)
		}
	}
	if s.end.Before(s.start) || s.start.Before(time.Now().Add(-time.Hour)) || s.end.After(time.Now()) {
		t.Errorf("%s is from %v to %v", s.name, s.start, s.end)
	}
}

const greetConfig = `
functions:
  greet:
    trigger: {nats: {}}
    handler: {go: greet}
`

const chainConfig = `
traces: {endpoint: "%s", service_name: shop, headers: {X-Key: s3cret}}
functions:
  first:
    trigger: {nats: {stream: firsts, subject: "first.*", consumer: buyers}}
    handler: {go: first}
    output: {nats: {subject: second}}
  second:
    trigger: {nats: {}}
    handler: {python: {path: ./app}}
    output: {nats: {subject: third}}
  third:
    trigger: {nats: {}}
    handler: {http: {url: "%s"}}
    output: {nats: {subject: fourth}}
  fourth:
    trigger: {nats: {}}
    handler: {exec: {command: [sh, -c, "echo $$TRACEPARENT $$TRACESTATE > seen.new && mv seen.new seen"]}}
`

// The path of a message through four functions, with each kind of handler, is one trace: each
// function receives the context of its own span.
func TestTraces(t *testing.T) {
	t.Parallel()
	c := collect(t, nil)
	var mu sync.Mutex
	seen := make(map[string]string) // by function, the traceparent and the tracestate
	note := func(function string, context ...string) {
		mu.Lock()
		defer mu.Unlock()
		seen[function] = strings.Join(context, " ")
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("third", r.Header.Get("Traceparent"), r.Header.Get("Tracestate"))
		_, _ = w.Write([]byte("from the app"))
	}))
	defer app.Close()
	dir := write(t, map[string]string{"drover.yaml": fmt.Sprintf(chainConfig, c.url, app.URL), "app/function_app.py": `
def second(message, context):
    assert context.traceparent == message.attributes["traceparent"]
    print("second", context.traceparent, context.tracestate)
    return "from python"
`})
	file := filepath.Join(dir, "drover.yaml")
	log, stop := traced(t, file, handlers.Funcs{"first": func(ctx context.Context, m *triggers.Message) ([]byte, error) {
		span := trace.SpanFromContext(ctx)
		if !span.IsRecording() {
			return nil, errors.New("no span")
		}
		_, child := span.TracerProvider().Tracer("user").Start(ctx, "of the user's")
		child.End()
		parent, state := "00-"+span.SpanContext().TraceID().String()+"-"+span.SpanContext().SpanID().String()+"-01", span.SpanContext().TraceState().String()
		note("first", parent, state)
		if m.Attributes["traceparent"] != parent || m.Attributes["other"] != "x" || m.Attributes["Traceparent"] != "" {
			return nil, fmt.Errorf("the attributes are %v", m.Attributes)
		}
		return []byte("from go"), nil
	}})
	sendIn(t, file, "first.new", "--body", "12345", "-H", "Traceparent="+sampled, "-H", "tracestate=a=b", "-H", "other=x", "--via", "embedded")
	settled := c.WaitFor(t, "settle fourth", 1)[0]
	if status := stop(); status != ExitOK {
		t.Fatalf("status %d\n%s", status, log)
	}
	all := c.got()
	parent := parentSpan
	for i, f := range []struct{ name, at, to, system string }{
		{"first", "first.*", "second", "nats"}, {"second", "second", "third", "nats"}, {"third", "third", "fourth", "nats"}, {"fourth", "fourth", "", ""},
	} {
		for _, what := range []string{"receive", "process", "settle"} {
			if n := len(all[what+" "+f.at]); n != 1 {
				t.Fatalf("%d spans %s %s; there are %v\n%s", n, what, f.at, all, log)
			}
			s := all[what+" "+f.at][0]
			if s.trace != traceID || s.parent != parent || s.failed != "" {
				t.Errorf("%s: trace %s, parent %s, error %q; want %s, %s", s.name, s.trace, s.parent, s.failed, traceID, parent)
			}
		}
		receive, process, settle := all["receive "+f.at][0], all["process "+f.at][0], all["settle "+f.at][0]
		about := map[string]any{"messaging.system": "nats", "drover.function": f.name, "drover.attempt": int64(1), "messaging.consumer.group.name": f.name}
		if i == 0 {
			about["messaging.destination.name"], about["messaging.destination.template"] = "first.new", "first.*"
			about["messaging.consumer.group.name"], about["messaging.message.body.size"] = "buyers", int64(5)
		}
		receive.has(t, tracepb.Span_SPAN_KIND_CLIENT, about)
		receive.has(t, tracepb.Span_SPAN_KIND_CLIENT, map[string]any{"messaging.operation.type": "receive", "messaging.operation.name": "receive"})
		about["drover.verdict"] = "done"
		process.has(t, tracepb.Span_SPAN_KIND_CONSUMER, about)
		process.has(t, tracepb.Span_SPAN_KIND_CONSUMER, map[string]any{"messaging.operation.type": "process"})
		settle.has(t, tracepb.Span_SPAN_KIND_CLIENT, about)
		if process.about["messaging.message.id"] == nil || receive.end.After(process.start) || settle.start.Before(process.end) {
			t.Errorf("%s: id %v, received until %v, processed from %v to %v, settled from %v", f.name, process.about["messaging.message.id"], receive.end, process.start, process.end, settle.start)
		}
		want := process.traceparent() + " a=b"
		switch f.name {
		case "second":
			log.WaitFor(t, "second "+want)
		case "fourth":
			text, err := os.ReadFile(filepath.Join(dir, "seen"))
			if err != nil || strings.TrimSpace(string(text)) != want {
				t.Errorf("the command has seen %q, want %q, %v", text, want, err)
			}
		default:
			if seen[f.name] != want {
				t.Errorf("%s has seen %q, want %q", f.name, seen[f.name], want)
			}
		}
		if f.to == "" {
			continue
		}
		send := all["send "+f.to][0]
		send.has(t, tracepb.Span_SPAN_KIND_PRODUCER, map[string]any{"messaging.system": f.system, "messaging.destination.name": f.to, "messaging.operation.type": "send"})
		if send.parent != process.id || send.trace != traceID {
			t.Errorf("%s: parent %s, want %s", send.name, send.parent, process.id)
		}
		parent = send.id
	}
	if user := all["of the user's"]; len(user) != 1 || user[0].parent != all["process first.*"][0].id {
		t.Errorf("the function's own span is %v", user)
	}
	if settled.about["drover.verdict"] != "done" {
		t.Errorf("%v", settled)
	}
	if c.resource["service.name"] != "shop" || c.resource["service.version"] == nil || c.resource["service.instance.id"] == nil || c.header.Get("X-Key") != "s3cret" {
		t.Errorf("the resource is %v, the header %v", c.resource, c.header)
	}
	if strings.Contains(log.String(), "s3cret") {
		t.Error("the header is in the log")
	}
}

// Failures have the attributes of another kind of source. The receive span of a message without a
// trace is a root span.
func TestTracesOfFailures(t *testing.T) {
	t.Parallel()
	_, bus := namespace(t)
	c := collect(t, nil)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no such order", http.StatusUnprocessableEntity)
	}))
	defer app.Close()
	dir := write(t, map[string]string{"bus": bus, "drover.yaml": fmt.Sprintf(`
traces: {endpoint: "%s"}
connections:
  bus: {connection_string: "file:bus"}
  local: {nats: embedded}
functions:
  orders:
    trigger: {servicebus: {topic: events, subscription: billing}}
    handler: {python: {path: ./app}}
    retry: {max_attempts: 2, initial: 10ms}
  posted:
    trigger: {nats: {}}
    handler: {http: {url: "%s"}}
`, c.url, app.URL), "app/function_app.py": `
def orders(body, context): raise ValueError("no luck with " + (context.traceparent or "nothing"))
`})
	file := filepath.Join(dir, "drover.yaml")
	log, stop := traced(t, file, nil)
	sendIn(t, file, "orders", "--body", "x", "-H", "Diagnostic-Id="+sampled)
	sendIn(t, file, "posted", "--body", "y")
	c.WaitFor(t, "settle events", 2)
	c.WaitFor(t, "settle posted", 1)
	if status := stop(); status != ExitOK {
		t.Fatalf("status %d\n%s", status, log)
	}
	all := c.got()
	for i, verdict := range []string{"retry", "reject"} {
		process, settle := all["process events"][i], all["settle events"][i]
		about := map[string]any{
			"messaging.system": "servicebus", "messaging.destination.name": "events", "messaging.destination.subscription.name": "billing",
			"drover.attempt": int64(i + 1), "drover.verdict": verdict,
		}
		process.has(t, tracepb.Span_SPAN_KIND_CONSUMER, about)
		settle.has(t, tracepb.Span_SPAN_KIND_CLIENT, about)
		settle.has(t, tracepb.Span_SPAN_KIND_CLIENT, map[string]any{"messaging.servicebus.disposition_status": []string{"abandon", "dead_letter"}[i]})
		want := "ValueError: no luck with " + process.traceparent()
		if process.failed != want || process.about["error.type"] != "ValueError" || process.parent != parentSpan || process.trace != traceID {
			t.Errorf("the error is %q (%v), want %q; the parent %s", process.failed, process.about["error.type"], want, process.parent)
		}
		if len(process.events) != 1 || process.events[0]["exception.type"] != "ValueError" || !strings.Contains(fmt.Sprint(process.events[0]["exception.stacktrace"]), "function_app.py") {
			t.Errorf("the events are %v", process.events)
		}
	}
	receive, process, settle := all["receive posted"][0], all["process posted"][0], all["settle posted"][0]
	if receive.parent != "" || process.parent != receive.id || settle.parent != receive.id || process.trace != receive.trace {
		t.Errorf("the root is %v; %v %v", receive, process, settle)
	}
	if process.about["error.type"] != "422" || process.about["drover.verdict"] != "reject" {
		t.Errorf("%v", process.about)
	}
}

// Without a configured endpoint, no traces are sent.
func TestNoTraces(t *testing.T) {
	for name, config := range map[string]string{"by default": "", "off": "traces: {endpoint: off}\n"} {
		t.Run(name, func(t *testing.T) {
			c := collect(t, nil)
			file := filepath.Join(write(t, map[string]string{"drover.yaml": config + greetConfig}), "drover.yaml")
			var env []string
			if config != "" {
				env = append(env, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.url)
			}
			got := make(chan string, 1)
			log, stop := traced(t, file, handlers.Funcs{"greet": func(_ context.Context, m *triggers.Message) ([]byte, error) {
				got <- m.Attributes["traceparent"]
				return nil, nil
			}}, env...)
			sendIn(t, file, "greet", "--body", "x", "-H", "traceparent="+sampled)
			if parent := <-got; parent != sampled {
				t.Errorf("the traceparent is %q", parent)
			}
			if status := stop(); status != ExitOK || c.asked() != 0 || strings.Contains(log.String(), "traces") {
				t.Errorf("status %d, %d requests\n%s", status, c.asked(), log)
			}
		})
	}
}

// A collector that hangs costs spans, but delays no message.
func TestACollectorThatHangs(t *testing.T) {
	t.Parallel()
	const messages = telemetry.MaxSpans / 2 // of three spans each
	hung := make(chan struct{})
	c := collect(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hung:
		case <-r.Context().Done():
		}
	})
	defer close(hung)
	dir := write(t, map[string]string{"drover.yaml": "traces: {endpoint: '" + c.url + "'}\n" + greetConfig})
	file := filepath.Join(dir, "drover.yaml")
	var handled sync.WaitGroup
	handled.Add(messages)
	log, stop := traced(t, file, handlers.Funcs{"greet": func(context.Context, *triggers.Message) ([]byte, error) {
		handled.Done()
		return nil, nil
	}})
	sendIn(t, file, "greet", "--count", fmt.Sprint(messages))
	handled.Wait()
	until(t, log, "dropped spans are counted", func() bool {
		_, text := ask(t, admin.SocketPath(filepath.Join(dir, ".drover")), "/metrics")
		i := strings.Index(text, "\ndrover_trace_spans_dropped_total ")
		return i >= 0 && !strings.HasPrefix(text[i:], "\ndrover_trace_spans_dropped_total 0\n")
	})
	start := time.Now()
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, log)
	}
	// 10 s for the request in flight and 3 s for the rest; without the bound each batch takes 10 s.
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if !strings.Contains(log.String(), "spans were dropped since the daemon started") {
		t.Errorf("the log does not tell:\n%s", log)
	}
}

// A collector that refuses spans is logged once, without the secret. If it is unreachable for a
// moment, no span is lost.
func TestACollectorThatComesBack(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	refuse := true
	c := collect(t, nil)
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		no := refuse
		mu.Unlock()
		if no {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		c.server.Config.Handler.ServeHTTP(w, r)
	}))
	defer door.Close()
	file := filepath.Join(write(t, map[string]string{"drover.yaml": "traces: {endpoint: '" + door.URL + "', headers: {Authorization: s3cret}}\n" + greetConfig}), "drover.yaml")
	log, stop := traced(t, file, handlers.Funcs{"greet": func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }})
	sendIn(t, file, "greet", "--body", "x")
	log.WaitFor(t, "cannot send traces; dropping spans until it works")
	log.WaitFor(t, "401 Unauthorized")
	mu.Lock()
	refuse = false
	mu.Unlock()
	sendIn(t, file, "greet", "--body", "x")
	log.WaitFor(t, "sending traces again")
	c.WaitFor(t, "settle greet", 1)
	if status := stop(); status != ExitOK || strings.Contains(log.String(), "s3cret") {
		t.Errorf("status %d\n%s", status, log)
	}
}

// In a Python app that uses OpenTelemetry, the current span is the message's.
func TestTracesInPythonWithOpenTelemetry(t *testing.T) {
	t.Parallel()
	if err := exec.Command("python3", "-c", "import opentelemetry.trace").Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("python3 has no opentelemetry: pip install opentelemetry-api")
		}
		t.Skip("python3 has no opentelemetry: pip install opentelemetry-api")
	}
	c := collect(t, nil)
	dir := write(t, map[string]string{"drover.yaml": fmt.Sprintf(`
traces: {endpoint: "%s"}
functions:
  inline: {trigger: {nats: {}}, handler: {python: {path: ./inline}}}
  waits: {trigger: {nats: {}}, handler: {python: {path: ./loop}}}
`, c.url), "inline/function_app.py": `
from opentelemetry import trace
def inline(body):
    c = trace.get_current_span().get_span_context()
    print("inline", f"{c.trace_id:032x} {c.span_id:016x}")
`, "loop/function_app.py": `
import asyncio
from opentelemetry import trace
async def waits(message):
    await asyncio.sleep(0.01)
    c = trace.get_current_span().get_span_context()
    print("waits", f"{c.trace_id:032x} {c.span_id:016x}")
`})
	file := filepath.Join(dir, "drover.yaml")
	log, _ := traced(t, file, nil)
	for _, function := range []string{"inline", "waits"} {
		sendIn(t, file, function, "-H", "traceparent="+sampled, "--count", "3")
		for _, s := range c.WaitFor(t, "process "+function, 3) {
			log.WaitFor(t, function+" "+traceID+" "+s.id)
		}
		sendIn(t, file, function, "--body", "x", "-H", "traceparent="+unsampled)
		log.WaitFor(t, function+" "+traceID+" "+parentSpan)
	}
}
