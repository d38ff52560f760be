package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The tests of this file run function apps with a custom handler: a web server that drover starts.

// customHandler is a custom handler. For a certain body it exits once, before it has answered.
const customHandler = `
import http.server, json, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        invocation = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        order = json.loads(invocation["Data"]["order"])
        print("got", order, flush=True)
        if order == "die" and not os.path.exists("died"):
            open("died", "w").close()
            os._exit(3)
        receipts = [{"of": order, "version": VERSION, "args": sys.argv[1:], "greeting": os.environ["GREETING"], "path": self.path, "pid": os.getpid()}, "a text"]
        answer = json.dumps({"Outputs": {"receipts": receipts, "other": "dropped"}, "ReturnValue": order.upper(), "Logs": ["priced " + order]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_): pass

VERSION = 1
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), Handler).serve_forever()
`

const customFunction = `{"bindings": [
	{"type": "queueTrigger", "direction": "in", "name": "order", "queueName": "orders", "connection": "AzureWebJobsStorage"},
	{"type": "queue", "direction": "out", "name": "receipts", "queueName": "receipts", "connection": "AzureWebJobsStorage"},
	{"type": "queue", "direction": "out", "name": "$return", "queueName": "loud", "connection": "AzureWebJobsStorage"}]}`

// customApp writes an app with a custom handler.
func customApp(t *testing.T, description string) string {
	t.Helper()
	return write(t, map[string]string{
		"host.json":           `{"version": "2.0", "customHandler": {"description": ` + description + `}}`,
		"local.settings.json": `{"Values": {"FUNCTIONS_WORKER_RUNTIME": "custom", "GREETING": "hello"}}`,
		"Price/function.json": customFunction, "handler.py": customHandler,
		"Upload/function.json": `{"bindings": [{"type": "blobTrigger", "direction": "in", "name": "blob", "path": "x/{name}"}]}`,
	})
}

func TestRunCustomHandler(t *testing.T) {
	t.Parallel()
	q := queues{connection: emulatedStorage(t)}
	dir := customApp(t, `{"defaultExecutablePath": "python3", "arguments": ["handler.py", "--greet", "%GREETING%"]}`)
	settings := []string{"AzureWebJobsStorage=" + q.connection}
	status, out, errs := commandFor(t, "", []string{"check", dir}, settings...)
	if status != ExitOK {
		t.Fatalf("drover check: status %d: %s%s", status, out, errs)
	}
	wantAll(t, "drover check", out, []string{
		"2 functions, custom handler", "function Price Price/function.json", "output queue receipts: storage queue receipts on AzureWebJobsStorage", "does not run drover has no binding blobTrigger",
		"custom handler python3 handler.py --greet %GREETING%", "customHandler.description.arguments.0 handler.py (host.json:1): honored",
	})
	log, stop := runApp(t, dir, "", settings...)
	log.WaitFor(t, `"msg":"running"`)
	type receipt struct {
		Of, Greeting, Path string
		Args               []string
		Version, PID       int
	}
	price := func(order string) (r receipt) {
		t.Helper()
		q.put(t, "orders", order)
		for _, body := range q.take(t, log, "receipts", 2) {
			if body != "a text" && json.Unmarshal([]byte(body), &r) != nil {
				t.Errorf("a receipt is %s", body)
			}
		}
		q.want(t, log, "loud", strings.ToUpper(order))
		return r
	}
	first := price("pear")
	if first.Of != "pear" || first.Greeting != "hello" || first.Path != "/Price" || strings.Join(first.Args, " ") != "--greet hello" || first.Version != 1 {
		t.Errorf("the receipt is %+v", first)
	}
	wantLine(t, log, "INFO", "Price", "priced pear")
	log.WaitFor(t, "got pear")
	second := price("die") // its attempt ends with the process, and the next one is another's
	if second.PID == first.PID {
		t.Errorf("the process that ended still runs: %+v", second)
	}
	log.WaitFor(t, "the custom handler ended; it is started again")
	if status, out, errs := commandFor(t, "", []string{"invoke", "Price", "-c", dir, "--body", "plum"}, settings...); status != ExitOK || !strings.Contains(out+errs, "PLUM") {
		t.Errorf("drover invoke: status %d: %s%s", status, out, errs)
	}
	changed := strings.Replace(customHandler, "VERSION = 1", "VERSION = 2", 1)
	if err := os.WriteFile(filepath.Join(dir, "handler.py"), []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, errs := commandFor(t, "", []string{"reload", "-c", dir}, settings...); status != ExitOK {
		t.Fatalf("drover reload: status %d: %s%s", status, out, errs)
	}
	if third := price("fig"); third.Version != 2 || third.PID == second.PID {
		t.Errorf("after a reload the receipt is %+v", third)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, log)
	}
}

func TestCustomHandlersThatDoNotStart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		description string
		want        []string
	}{
		"it ends":       {`{"defaultExecutablePath": "python3", "arguments": ["-c", "\"import sys; sys.exit('no database')\""]}`, []string{"exit status 1", "no database"}},
		"there is none": {`{"defaultExecutablePath": "bin/handler"}`, []string{"there is no custom handler", "bin/handler (customHandler, host.json:1); build it, or correct defaultExecutablePath"}},
		"not in PATH":   {`{"defaultExecutablePath": "no-such-program"}`, []string{"neither a file in", "nor a program in PATH"}},
		"no rights":     {`{"defaultExecutablePath": "handler.py"}`, []string{"is not executable; run: chmod +x"}},
		"no directory":  {`{"defaultExecutablePath": "python3", "workingDirectory": "src"}`, []string{"the working directory", "src of the custom handler", "is not a directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, out, errs := commandFor(t, "", []string{"run", customApp(t, test.description)}, "AzureWebJobsStorage="+emulatedStorage(t))
			if status == ExitOK {
				t.Errorf("status %d", status)
			}
			wantAll(t, "the log", out+errs, test.want)
		})
	}
}

// httpHandler is a custom handler with HTTP functions: it knows an invocation by its path.
const httpHandler = `
import http.server, json, os

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/Order":  # a request of the function Page
            return self.answer(418, ("%s %s %s %s" % (self.command, self.path, self.headers["X-Ask"], body.decode())).encode(), "text/x-page")
        req = json.loads(body)["Data"]["req"]
        response = {"statusCode": 202, "headers": {"X-Query": req["Query"]["q"]}, "body": {"id": req["Params"]["id"], "method": req["Method"], "body": req.get("Body")}}
        self.answer(200, json.dumps({"Outputs": {"res": response, "sent": "order " + req["Params"]["id"]}}).encode(), "application/json")

    do_GET = do_POST

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), Handler).serve_forever()
`

// Requests are described to a function with another output, and forwarded to one without.
func TestRunHTTPFunctionsOfACustomHandler(t *testing.T) {
	t.Parallel()
	q := queues{connection: emulatedStorage(t)}
	dir := write(t, map[string]string{
		"host.json":           `{"version": "2.0", "customHandler": {"enableForwardingHttpRequest": true, "description": {"defaultExecutablePath": "python3", "arguments": ["handler.py"]}}}`,
		"local.settings.json": `{"Values": {"FUNCTIONS_WORKER_RUNTIME": "custom"}}`, "handler.py": httpHandler,
		"Order/function.json": `{"bindings": [{"type": "httpTrigger", "direction": "in", "name": "req", "route": "orders/{id}", "methods": ["get", "post"], "authLevel": "anonymous"},
			{"type": "http", "direction": "out", "name": "res"}, {"type": "queue", "direction": "out", "name": "sent", "queueName": "sent", "connection": "AzureWebJobsStorage"}]}`,
		"Page/function.json": `{"bindings": [{"type": "httpTrigger", "direction": "in", "name": "req", "authLevel": "anonymous"}, {"type": "http", "direction": "out", "name": "$return"}]}`,
	})
	url, log, stop := runHTTPApp(t, dir, "", "AzureWebJobsStorage="+q.connection)
	if got := request(t, "POST", url+"/api/orders/7?q=1", "pear"); got.status != 202 || got.body != `{"id": "7", "method": "POST", "body": "pear"}` || got.header.Get("X-Query") != "1" {
		t.Errorf("the described request: %+v", got)
	}
	q.want(t, log, "sent", "order 7")
	if got := request(t, "PUT", url+"/api/orders/7", ""); got.status != 405 {
		t.Errorf("another method: %+v", got)
	}
	exchange{"POST", "/api/Page?a=b", "fig", 418, "POST /api/Page?a=b yes fig", "text/x-page"}.check(t, url, "X-Ask", "yes")
	exchange{"GET", "/api/Page", "", 418, "GET /api/Page None ", "text/x-page"}.check(t, url)
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, log)
	}
}

// A function app with NATS: by the generic decorators, with the embedded server.
func TestRunNATSFunctionApp(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		dir := functionApp(t, map[string]string{
			"local.settings.json": `{"Values": {"FUNCTIONS_WORKER_RUNTIME": "python", "Nats": "embedded", "PREFIX": "shop"}}`,
			"function_app.py": appHead + `
import logging

@app.generic_trigger(arg_name="msg", type="natsTrigger", connection="Nats", stream="ORDERS", subject="%PREFIX%.orders")
@app.generic_output_binding(arg_name="receipt", type="nats", connection="Nats", subject="shop.receipts")
def price(msg: str, receipt: func.Out[str]) -> None:
    receipt.set(msg.upper())

@app.generic_trigger(arg_name="msg", type="natsTrigger", connection="Nats", stream="RECEIPTS", subject="shop.receipts")
async def keep(msg: bytes) -> None:
    logging.info("kept %s", msg.decode())
`,
		})
		status, out, errs := checkApp(t, environment, dir, nil)
		if status != ExitOK {
			t.Fatalf("drover check: status %d: %s%s", status, out, errs)
		}
		wantAll(t, "drover check", out, []string{"trigger natsTrigger msg: stream ORDERS of NATS on Nats, subject shop.orders", "output nats receipt: subject shop.receipts on Nats", "connection Nats the embedded NATS server"})
		log, stop := runApp(t, dir, environment)
		log.WaitFor(t, `"msg":"running"`)
		if status, out, errs := commandFor(t, environment, []string{"send", "price", "-c", dir, "--body", "pear"}); status != ExitOK {
			t.Fatalf("drover send: status %d: %s%s", status, out, errs)
		}
		wantLine(t, log, "INFO", "keep", "kept PEAR")
		if status := stop(); status != ExitOK {
			t.Errorf("status %d\n%s", status, log)
		}
	})
}
