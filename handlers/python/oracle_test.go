package python

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// This file compares the results of function apps in drover with those in azure-functions-runtime, Azure's
// own runtime of Python 3.13, for the same inputs.

// oracleApps has the apps. DROVER_FUNCTION_APPS names another directory.
const oracleApps = "../../daemon/cli/testdata/functionapps"

// oracleCall is a call of a function, as testdata/oracle.py takes it.
type oracleCall struct {
	Function string            `json:"function"`
	Name     string            `json:"name"` // of the trigger's binding
	Type     string            `json:"type"`
	Body     string            `json:"-"`
	Base64   string            `json:"body"`
	Batch    []map[string]any  `json:"-"` // the metadata of each message of a batch, with the body as "Body"; nil: one message
	Bodies   []string          `json:"bodies,omitempty"`
	Binary   bool              `json:"binary,omitempty"`
	Metadata map[string]any    `json:"metadata,omitempty"`
	Retry    [2]int            `json:"retry"` // which retry this is, and the most that there may be
	Method   string            `json:"method,omitempty"`
	URL      string            `json:"url,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	Query    map[string]string `json:"query,omitempty"`
	Params   map[string]string `json:"params,omitempty"`
}

// oracleResult is the result of a call.
type oracleResult struct {
	Outputs  map[string][]string `json:"outputs"` // bodies, in base64
	Response *oracleResponse     `json:"response"`
	Error    string              `json:"error"`
}

// oracleResponse is an HTTP response.
type oracleResponse struct {
	Status  int         `json:"status"`
	Headers [][2]string `json:"headers"`
	Body    string      `json:"body"` // in base64
}

func onQueue(function, name, body string) oracleCall {
	at := time.Date(2026, 12, 1, 2, 3, 4, 0, time.UTC)
	return oracleCall{Function: function, Name: name, Type: "queueTrigger", Body: body, Metadata: map[string]any{
		"Id": "m1", "DequeueCount": 2, "PopReceipt": "receipt", "InsertionTime": at, "ExpirationTime": at.AddDate(0, 0, 7), "NextVisibleTime": at.Add(time.Minute),
	}}
}

func onBus(function, name, body string) oracleCall {
	at := time.Date(2026, 12, 1, 2, 3, 4, 0, time.UTC)
	return oracleCall{Function: function, Name: name, Type: "serviceBusTrigger", Body: body, Metadata: map[string]any{
		"MessageId": "m1", "DeliveryCount": 2, "ContentType": "text/plain", "CorrelationId": "c1", "Subject": "order", "Label": "order", "ReplyTo": "answers", "To": "shop",
		"SessionId": "s1", "PartitionKey": "s1", "SequenceNumber": 17, "EnqueuedTimeUtc": at, "ExpiresAtUtc": at.AddDate(0, 0, 14), "LockedUntil": at.Add(time.Minute),
		"LockToken":             "11111111-2222-3333-4444-555555555555",
		"ApplicationProperties": map[string]any{"sensor": "north", "n": 7}, "UserProperties": map[string]any{"sensor": "north", "n": 7},
	}}
}

// onBusMany returns a call with a batch of messages. The host passes their metadata in lists.
func onBusMany(function, name string, bodies ...string) oracleCall {
	c := oracleCall{Function: function, Name: name, Type: "serviceBusTrigger", Metadata: make(map[string]any)}
	for i, body := range bodies {
		one := onBus("", "", "").Metadata
		properties := map[string]any{"sensor": "sensor-" + strconv.Itoa(i), "n": i}
		one["MessageId"], one["SequenceNumber"], one["ApplicationProperties"], one["UserProperties"] = "m"+strconv.Itoa(i), i, properties, properties
		for key, value := range one {
			list, _ := c.Metadata[key+"Array"].([]any)
			c.Metadata[key+"Array"] = append(list, value)
		}
		one["Body"] = body
		c.Batch = append(c.Batch, one)
		c.Bodies = append(c.Bodies, base64.StdEncoding.EncodeToString([]byte(body)))
	}
	return c
}

func onTimer(function string) oracleCall {
	return oracleCall{Function: function, Name: "timer", Type: "timerTrigger", Body: `{"Schedule": {"AdjustForDST": true}, "ScheduleStatus": null, "IsPastDue": false}`}
}

func onRequest(function, method, path, body string, change func(*oracleCall)) oracleCall {
	c := oracleCall{Function: function, Name: "req", Type: "httpTrigger", Method: method, URL: strings.ReplaceAll("http://shop.example/api/"+path, "/api/../", "/"), Body: body, Headers: map[string]string{"host": "shop.example"}, Query: map[string]string{}, Params: map[string]string{}}
	u, err := url.Parse(c.URL)
	if err != nil {
		panic(err)
	}
	for name, values := range u.Query() {
		c.Query[name] = values[0]
	}
	if change != nil {
		change(&c)
	}
	return c
}

func (c oracleCall) retried(n, most int) oracleCall {
	c.Retry = [2]int{n, most}
	return c
}

func param(name, value string) func(*oracleCall) {
	return func(c *oracleCall) { c.Params[name] = value }
}

func header(name, value string) func(*oracleCall) {
	return func(c *oracleCall) { c.Headers[name] = value }
}

// oracleCases are the calls, by app. They exclude functions that read the clock or count calls, and
// those that need a package that the runtime's environment does not have.
var oracleCases = map[string][]oracleCall{
	"queue-chain": {
		onQueue("price", "order", `{"id":7,"lines":[{"price":5,"count":2},{"price":1,"count":3}]}`), onQueue("price", "order", "no JSON"),
		onQueue("Split", "text", "a b c"), onQueue("Split", "text", "   "), onQueue("Split", "text", "grüße 😀"),
		onQueue("describe", "msg", "hello"), onQueue("doomed", "msg", "x"),
		{Function: "reverse", Name: "data", Type: "queueTrigger", Body: "\xff\x00\x01", Binary: true, Metadata: onQueue("", "", "").Metadata},
	},
	"blueprints": {
		onQueue("pay", "bill", "7"), onRequest("DailyReport", "GET", "reports/monday", "", param("day", "monday")), onRequest("ping", "GET", "ping", "", nil),
	},
	"bus-v1": {
		onBus("Invoice", "msg", "bill \x7f"), onBusMany("Ledger", "entries", "a", "b", "grüße"), onBusMany("Ledger", "entries", "alone"),
	},
	"context-logging": {onQueue("says", "msg", "good"), onQueue("says", "msg", "bad"), onQueue("overlap", "msg", "a")},
	"identity":        {onQueue("forward", "msg", "to the bus"), onBus("back", "msg", "to the queue")},
	"mixed-unknown":   {onQueue("works", "msg", "plain")},
	"orders-bus": {
		onBus("handle_order", "msg", "pears"), onBus("send_mail", "event", "PEARS"), onBus("walk", "step", "left"), onBus("dead", "msg", "x"),
		onBusMany("collect", "readings", "1.5", "2", "3"), onBusMany("collect", "readings", "no number", "2"),
	},
	"retry": {
		onQueue("flaky", "msg", "x").retried(0, 3), onQueue("flaky", "msg", "x").retried(2, 3), onBus("slowly", "msg", "x").retried(2, 4), onBus("slowly", "msg", "x").retried(3, 4),
	},
	"settings": {
		onQueue("one", "msg", "x"), onQueue("off", "msg", "x"), onRequest("loud", "GET", "loud", "", nil), onRequest("quiet", "GET", "quiet", "", nil),
	},
	// The two examples of Azure's guide. Their URLs are placeholders, so the first one fails.
	"seed-v1": {onRequest("fetch", "GET", "fetch", "", nil), onRequest("ten_gets", "GET", "ten_gets", "", nil)},
	"seed-v2": {onRequest("fetch", "GET", "fetch", "", nil), onRequest("ten_gets", "GET", "ten_gets", "", nil)},
	"timers":  {onTimer("once"), onTimer("Generic")},
	"wsgi-flask": {
		onQueue("web_job", "msg", "x"), onRequest("http_app_func", "GET", "../hello/ann?shout=1", "", nil), onRequest("http_app_func", "POST", "../sum", "[1, 2]", header("content-type", "application/json")),
		onRequest("http_app_func", "GET", "../missing", "", nil),
	},
	"asgi-fastapi": {
		onRequest("http_app_func", "GET", "fruit/pear?ripe=true", "", nil), onRequest("http_app_func", "GET", "fruit/stone", "", nil),
		onRequest("http_app_func", "POST", "fruit", `{"name": "fig", "weight": 1.5}`, header("content-type", "application/json")), onRequest("http_app_func", "POST", "fruit", `{}`, header("content-type", "application/json")),
		onRequest("http_app_func", "GET", "scope?x=1", "", header("user-agent", "test")),
	},
	"http-api": {
		onRequest("item", "GET", "items/7", "", param("id", "7")), onRequest("item", "PUT", "items/7", `{"name": "pear"}`, param("id", "7")), onRequest("item", "PUT", "items/7", "no JSON", param("id", "7")),
		onRequest("item", "GET", "items/7", "", param("id", "7")), onRequest("item", "DELETE", "items/7", "", param("id", "7")),
		onRequest("hello", "GET", "hello/ann", "", param("name", "ann")), onRequest("hello", "GET", "hello?name=bob", "", nil), onRequest("hello", "GET", "hello", "", nil),
		onRequest("Echo", "POST", "echo", "\xff\x00", header("x-sent", "seen")), onRequest("Echo", "POST", "echo", "text", header("content-type", "text/x")),
		onRequest("fails", "GET", "fails", "", nil), onRequest("secret", "GET", "secret", "", nil), onRequest("enqueue", "POST", "enqueue", `[1, {"a": "b"}]`, nil),
		onRequest("cookies", "GET", "cookies", "", nil), onRequest("nothing", "GET", "nothing", "", nil),
		onRequest("form", "POST", "form", "name=ann", header("content-type", "application/x-www-form-urlencoded")),
	},
}

// TestOutputsAreThoseOfAzuresRuntime checks that functions return the same in drover as in Azure's
// own runtime: for each output, as a response, and whether they fail.
func TestOutputsAreThoseOfAzuresRuntime(t *testing.T) {
	python, err := filepath.Abs(filepath.Join("testdata", "functionapps", "oracle", "bin", "python"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(python); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("azure-functions-runtime is missing; run: make functionapps")
		}
		t.Skip("azure-functions-runtime is missing; run: make functionapps")
	}
	apps := oracleApps
	if other := os.Getenv("DROVER_FUNCTION_APPS"); other != "" {
		apps = other
	}
	for _, name := range slices.Sorted(maps.Keys(oracleCases)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := filepath.Abs(filepath.Join(apps, name))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(dir); err != nil {
				t.Skipf("this app is not here: %v", err)
			}
			calls := oracleCases[name]
			want := runOracle(t, python, dir, calls)
			for i, got := range inDrover(t, python, dir, calls) {
				compareWithOracle(t, calls[i], got, want[i])
			}
		})
	}
}

// oracleVariables is the environment of an app.
func oracleVariables(dir string) []string {
	out := append(os.Environ(), "GREETING=hello", "FUNCTIONS_WORKER_RUNTIME=python", "PYTHONDONTWRITEBYTECODE=1")
	return append(out, "PYTHON_SCRIPT_FILE_NAME="+scriptOf(dir))
}

// scriptOf returns the file of an app of model v2; the file does not exist for model v1.
func scriptOf(dir string) string {
	if _, err := os.Stat(filepath.Join(dir, "shop_app.py")); err == nil {
		return "shop_app.py"
	}
	return "function_app.py"
}

// runOracle runs the calls in Azure's runtime.
func runOracle(t *testing.T, python, dir string, calls []oracleCall) (results []oracleResult) {
	t.Helper()
	for i := range calls {
		calls[i].Base64 = base64.StdEncoding.EncodeToString([]byte(calls[i].Body))
	}
	request, err := json.Marshal(map[string]any{"dir": dir, "calls": calls})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(soon(t), python, filepath.Join("testdata", "oracle.py"))
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr, cmd.Env = bytes.NewReader(request), &errs, oracleVariables(dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	if err := json.Unmarshal(out, &results); err != nil || len(results) != len(calls) {
		t.Fatalf("%d results of %d calls, %v", len(results), len(calls), err)
	}
	return results
}

// indexedFunction is a function of an app, as drover's index has it.
type indexedFunction struct {
	Name     string            `json:"name"`
	Module   string            `json:"module"`
	Entry    string            `json:"entry"`
	File     string            `json:"file"`
	HTTPType string            `json:"http_type"`
	Bindings []json.RawMessage `json:"bindings"`
	Retry    json.RawMessage   `json:"retry"`
}

// functionsOf returns the functions of an app. Those of model v1 are in files.
func functionsOf(t *testing.T, python, dir string) (functions []indexedFunction) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "function.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var own struct {
			ScriptFile, EntryPoint string
			Bindings               []json.RawMessage
		}
		if err := json.Unmarshal(text, &own); err != nil {
			t.Fatal(err)
		}
		f := indexedFunction{Name: filepath.Base(filepath.Dir(file)), Entry: own.EntryPoint, HTTPType: "function", Bindings: own.Bindings}
		if f.Entry == "" {
			f.Entry = "main"
		}
		if own.ScriptFile == "" {
			own.ScriptFile = "__init__.py"
		}
		f.File = f.Name + "/" + own.ScriptFile
		functions = append(functions, f)
	}
	if len(functions) > 0 {
		return functions
	}
	_, home := installation.find(t)
	log := slog.New(slog.DiscardHandler)
	reaper := childproc.New(log)
	defer reaper.Close()
	command := WorkerCommand(interpreters.Interpreter{Path: python}, home, dir, oracleVariables(dir))
	request, err := json.Marshal(map[string]any{"dir": dir, "script": scriptOf(dir), "patience": 0})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := RunIndex(soon(t), &process.Starter{Command: command, Reaper: reaper, Log: log}, request)
	var index struct {
		Functions []indexedFunction `json:"functions"`
	}
	if err == nil {
		err = json.Unmarshal(answer, &index)
	}
	if err != nil || len(index.Functions) == 0 {
		t.Fatalf("the index of %s: %v: %s", dir, err, answer)
	}
	return index.Functions
}

// bindingOf returns the parts of a binding that tests need.
type bindingOf struct{ Type, Name, Direction string }

// inDrover runs the calls in drover's worker.
func inDrover(t *testing.T, python, dir string, calls []oracleCall) (results []oracleResult) {
	t.Helper()
	pools := make(map[int]*workers.Pool) // by max_attempts, which functions can read
	poolFor := func(attempts int) *workers.Pool {
		if pools[attempts] != nil {
			return pools[attempts]
		}
		var functions []workers.Function
		for _, f := range functionsOf(t, python, dir) {
			if slices.ContainsFunc(calls, func(c oracleCall) bool { return c.Function == f.Name }) {
				functions = append(functions, f.worker(t, dir, attempts, calls))
			}
		}
		pools[attempts] = startApp(t, "", func(c *workers.Config) {
			_, home := installation.find(t)
			c.App, c.Functions = dir, functions
			c.Command = WorkerCommand(interpreters.Interpreter{Path: python}, home, dir, oracleVariables(dir))
			c.Log = slog.New(slog.DiscardHandler)
		})
		return pools[attempts]
	}
	for _, c := range calls {
		p := poolFor(c.Retry[1] + 1)
		ctx := &collected{Context: soon(t)}
		if c.Batch != nil {
			body, err := c.handleBatch(ctx, handler(t, p, c.Function))
			results = append(results, ctx.result(t, false, body, err))
			continue
		}
		m := &triggers.Message{ID: "m1", Body: []byte(c.Body), Attempt: c.Retry[0] + 1, Origin: native(c.Metadata)}
		if c.Type == "httpTrigger" {
			m = c.request(t)
		}
		body, err := handle(ctx, handler(t, p, c.Function), m)
		results = append(results, ctx.result(t, c.Type == "httpTrigger", body, err))
	}
	return results
}

// worker returns the function as a worker gets it.
func (f indexedFunction) worker(t *testing.T, dir string, attempts int, calls []oracleCall) workers.Function {
	t.Helper()
	out := workers.Function{Name: f.Name, Module: f.Module, Function: f.Name, Origin: true}
	for _, c := range calls {
		if c.Function == f.Name {
			out.Batch = max(out.Batch, len(c.Batch))
		}
	}
	for _, raw := range f.Bindings {
		var b bindingOf
		if err := json.Unmarshal(raw, &b); err != nil {
			t.Fatal(err)
		}
		if strings.EqualFold(b.Direction, "out") && !strings.EqualFold(b.Type, "http") {
			out.Outputs = append(out.Outputs, b.Name)
		}
	}
	var err error
	out.Azure, err = json.Marshal(map[string]any{
		"name": f.Name, "entry": f.Entry, "file": f.File, "http_type": f.HTTPType, "bindings": f.Bindings, "directory": dir, "max_attempts": attempts, "retry": f.Retry,
		"script": scriptOf(dir),
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.Module == "" {
		out.Module = f.File
	}
	return out
}

// handleBatch runs a batch in drover's worker. Its result belongs to all messages.
func (c oracleCall) handleBatch(ctx *collected, h handlers.Handler) ([]byte, error) {
	var messages []*triggers.Message
	for _, one := range c.Batch {
		known := maps.Clone(one)
		delete(known, "Body")
		messages = append(messages, &triggers.Message{ID: one["MessageId"].(string), Body: []byte(one["Body"].(string)), Attempt: 1, Origin: native(known)})
	}
	result, err := h.(handlers.Batched).HandleBatch(ctx, messages)
	if err != nil {
		return nil, err
	}
	return result.Whole.Deliver(ctx)
}

// request returns an HTTP request as a message.
func (c oracleCall) request(t *testing.T) *triggers.Message {
	t.Helper()
	u, err := url.Parse(c.URL)
	if err != nil {
		t.Fatal(err)
	}
	params, err := json.Marshal(c.Params)
	if err != nil {
		t.Fatal(err)
	}
	m := &triggers.Message{
		ID: "6e0c9e5a-0000-4000-8000-000000000001", Body: []byte(c.Body), Attempt: 1, Subject: u.Path, Attributes: make(map[string]string),
		Origin: triggers.Known{triggers.HTTPMethod: c.Method, triggers.HTTPURL: c.URL, triggers.HTTPQuery: u.RawQuery, triggers.HTTPParams: string(params)},
	}
	for name, value := range c.Headers {
		m.Attributes[http.CanonicalHeaderKey(name)] = value
	}
	return m
}

// collected is the context of a call, with the messages that the function sends.
type collected struct {
	context.Context
	mu         sync.Mutex
	outputs    map[string][]string
	properties triggers.Properties
}

func (c *collected) Describe(properties triggers.Properties) { c.properties = properties }

func (c *collected) Send(output string, body []byte, _ triggers.Properties) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outputs == nil {
		c.outputs = make(map[string][]string)
	}
	c.outputs[output] = append(c.outputs[output], base64.StdEncoding.EncodeToString(body))
	return nil
}

func (c *collected) Value(key any) any {
	if key == handlers.DescribedKey {
		return c
	}
	return c.Context.Value(key)
}

// result returns the result of a call in the form of the oracle.
func (c *collected) result(t *testing.T, isHTTP bool, body []byte, err error) (out oracleResult) {
	t.Helper()
	if err != nil {
		return oracleResult{Error: err.Error()}
	}
	out.Outputs = c.outputs
	if !isHTTP {
		return out
	}
	out.Response = &oracleResponse{Status: 200, Body: base64.StdEncoding.EncodeToString(body)}
	if text := c.properties[triggers.HTTPStatus]; text != "" {
		if out.Response.Status, err = strconv.Atoi(text); err != nil {
			t.Error(err)
		}
	}
	if text := c.properties[triggers.HTTPHeaders]; text != "" {
		if err := json.Unmarshal([]byte(text), &out.Response.Headers); err != nil {
			t.Error(err)
		}
	}
	if kind := c.properties[triggers.ContentType]; kind != "" {
		out.Response.Headers = append(out.Response.Headers, [2]string{"content-type", kind})
	}
	return out
}

// compareWithOracle compares the results of a call.
func compareWithOracle(t *testing.T, c oracleCall, got, want oracleResult) {
	t.Helper()
	if (got.Error != "") != (want.Error != "") || kindOfError(got.Error) != kindOfError(want.Error) {
		t.Errorf("%s(%.40q): the error is %q, and in Azure's runtime %q", c.Function, c.Body, got.Error, want.Error)
		return
	}
	names := slices.Concat(slices.Collect(maps.Keys(got.Outputs)), slices.Collect(maps.Keys(want.Outputs)))
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		if a, b := decodedBodies(t, got.Outputs[name]), decodedBodies(t, want.Outputs[name]); !reflect.DeepEqual(a, b) {
			t.Errorf("%s(%.40q) sends to %s: %q, and in Azure's runtime: %q", c.Function, c.Body, name, a, b)
		}
	}
	if (got.Response == nil) != (want.Response == nil) {
		t.Errorf("%s(%.40q): the response is %+v, and in Azure's runtime %+v", c.Function, c.Body, got.Response, want.Response)
	}
	if got.Response == nil || want.Response == nil {
		return
	}
	a, b := got.Response.comparable(t), want.Response.comparable(t)
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%s(%.40q): the response is\n%q, and in Azure's runtime\n%q", c.Function, c.Body, a, b)
	}
}

// kindOfError returns the class of the Python exception in a text, if a function raised it. Errors
// of the runtime itself have other texts in drover.
func kindOfError(text string) string {
	for _, own := range []string{"ValueError", "RuntimeError", "ConnectionError", "AssertionError", "JSONDecodeError"} {
		if strings.HasPrefix(text, own) {
			return own
		}
	}
	return ""
}

// decodedBodies returns bodies as strings, with JSON in one form.
func decodedBodies(t *testing.T, bodies []string) (out []string) {
	t.Helper()
	for _, text := range bodies {
		body, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Error(err)
		}
		out = append(out, normalJSON(body))
	}
	return out
}

func normalJSON(body []byte) string {
	var value any
	if json.Unmarshal(body, &value) != nil {
		return string(body)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return string(body)
	}
	return string(text)
}

// comparable returns the response without differences that no client can notice: header names in
// lower case and sorted, and only the names and values of cookies, since the host gets no more of a
// cookie that is a string.
func (r *oracleResponse) comparable(t *testing.T) (out []string) {
	t.Helper()
	for _, h := range r.Headers {
		name, value := strings.ToLower(h[0]), h[1]
		switch name {
		case "content-length":
			continue
		case "set-cookie":
			value, _, _ = strings.Cut(value, ";")
		}
		out = append(out, name+": "+value)
	}
	slices.Sort(out)
	body, err := base64.StdEncoding.DecodeString(r.Body)
	if err != nil {
		t.Error(err)
	}
	return append([]string{strconv.Itoa(r.Status), normalJSON(body)}, out...)
}
