package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// The tests of this file run the HTTP functions of function apps, from testdata/functionapps, with
// the library.

var appURL = regexp.MustCompile(`"url":"(http://127\.0\.0\.1:\d+)/`)

// runHTTPApp runs a function app until the test ends, and returns the address of its functions.
func runHTTPApp(t *testing.T, dir, environment string, settings ...string) (url string, log *printed, stop func() int) {
	t.Helper()
	log, stop = runApp(t, dir, environment, append(settings, "ASPNETCORE_URLS=http://127.0.0.1:0", "FUNCTIONS_WORKER_PROCESS_COUNT=1")...)
	log.WaitFor(t, `"msg":"running"`)
	at := appURL.FindStringSubmatch(log.String())
	if at == nil {
		t.Fatal(log)
	}
	return at[1], log, stop
}

// exchange is a request, and what its response must have.
type exchange struct {
	method, path, body string
	status             int
	want, kind         string
}

func (e exchange) check(t *testing.T, url string, header ...string) {
	t.Helper()
	got := request(t, e.method, url+e.path, e.body, header...)
	if got.status != e.status || got.body != e.want || e.kind != "" && got.header.Get("Content-Type") != e.kind {
		t.Errorf("%s %s: %d %q %s", e.method, e.path, got.status, got.body, got.header.Get("Content-Type"))
	}
}

const noRoute = "no function has this route\n"

func TestRunHTTPAPI(t *testing.T) {
	t.Parallel()
	inFunctionAppPythons(t, func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		dir := copyApp(t, "http-api")
		url, log, stop := runHTTPApp(t, dir, environment, "AzureWebJobsStorage="+q.connection)
		if got := request(t, "PUT", url+"/api/items/3", `{"a":1}`); got.status != 201 || got.header.Get("Location") != url+"/api/items/3" {
			t.Errorf("%+v", got)
		}
		for _, e := range []exchange{
			{"GET", "/api/items/3", "", 200, `{"a": 1}`, "application/json"},
			{"PUT", "/api/items/4", "no json", 400, "the body is no JSON", ""},
			{"GET", "/api/items/x", "", 404, noRoute, ""},
			{"POST", "/api/items/3", "", 405, "this route has the methods DELETE, GET, PUT\n", ""},
			{"DELETE", "/api/items/3", "", 204, "", ""},
			{"GET", "/api/items/3", "", 404, "no item 3", ""},
			{"GET", "/api/hello", "", 200, "hello world", "text/plain; charset=utf-8"},
			{"GET", "/api/hello/ann", "", 200, "hello ann", ""},
			{"GET", "/api/hello?name=bob", "", 200, "hello bob", ""},
			{"POST", "/api/hello", "", 405, "this route has the methods GET\n", ""},
			{"GET", "/api/fails", "", 500, "the function failed\n", ""},
			{"GET", "/api/secret", "", 200, "to" + "ld", ""},
			{"POST", "/api/enqueue", `[1,{"x":2}]`, 202, "2", ""},
			{"GET", "/api/nothing", "", 500, "the function failed\n", ""},
			{"GET", "/api/none", "", 404, noRoute, ""},
			{"HEAD", "/", "", 200, "", ""},
			{"GET", "/", "", 200, "drover is running\n", ""},
		} {
			e.check(t, url)
		}
		for _, path := range []string{"/api/Echo", "/api/echo"} {
			got := request(t, "POST", url+path, "\x00\xff", "X-Sent", "1", "Content-Type", "image/png")
			if got.status != 200 || got.body != "\x00\xff" || got.header.Get("X-Seen") != "1" || got.header.Get("X-Length") != "2" || got.header.Get("Content-Type") != "image/png" {
				t.Errorf("%s: %+v", path, got)
			}
		}
		form := strings.ReplaceAll("--b\nContent-Disposition: form-data; name=\"name\"\n\nann\n--b\nContent-Disposition: form-data; name=\"file\"; filename=\"f.txt\"\n\nabc\n--b--\n", "\n", "\r\n")
		exchange{"POST", "/api/form", form, 200, `{"name": "ann", "file": "f.txt", "size": 3}`, ""}.check(t, url, "Content-Type", "multipart/form-data; boundary=b")
		cookies := request(t, "GET", url+"/api/cookies", "").header.Values("Set-Cookie")
		if len(cookies) != 2 || !strings.Contains(cookies[0], "HttpOnly") || !strings.Contains(cookies[0], "Path=/") || !strings.Contains(cookies[1], "Max-Age=60") || !strings.Contains(cookies[1], "SameSite=Lax") {
			t.Errorf("%q", cookies)
		}
		large := string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16))
		if got := request(t, "POST", url+"/api/echo", large); got.status != 200 || got.body != large {
			t.Errorf("a MiB: status %d, %d bytes", got.status, len(got.body))
		}
		wantLine(t, log, "INFO", "work", "job 1")
		wantLine(t, log, "INFO", "work", `job {"x": 2}`)
		wantAll(t, "the log", log.String(), []string{"on purpose", "requests need no key"})
		if got := request(t, "POST", url+"/admin/functions/work", `{"input": "by hand"}`); got.status != 202 {
			t.Errorf("%+v", got)
		}
		wantLine(t, log, "INFO", "work", "job by hand")
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}

// The settings of the host: prefix, port, headers, limits and keys.
func TestRunHTTPSettings(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		dir := functionApp(t, map[string]string{
			"host.json": `{"version": "2.0", "extensions": {"http": {"routePrefix": "v2", "maxOutstandingRequests": 50, "customHeaders": {"X-Content-Type-Options": "nosniff"}}}}`,
			"function_app.py": "import azure.functions as func\napp = func.FunctionApp()\n\n" +
				"@app.route(route=\"%PLACE%/{x:int?}\")\ndef where(req: func.HttpRequest) -> str: return req.url\n",
			"keys/where.json": `{"keys": [{"name": "default", "value": "the-key-of-where", "encrypted": false}]}`,
		})
		url, log, stop := runHTTPApp(t, dir, environment, "PLACE=here", "FUNCTIONS_SECRETS_PATH="+filepath.Join(dir, "keys"))
		exchange{"GET", "/v2/here/1", "", 401, "this needs a key: the header x-functions-key, or ?code=\n", ""}.check(t, url)
		exchange{"GET", "/v2/here/1?a=b&code=the-key-of-where", "", 200, url + "/v2/here/1?a=b", ""}.check(t, url)
		got := request(t, "GET", url+"/v2/here", "", "x-functions-key", "the-key-of-where")
		if got.status != 200 || got.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%+v", got)
		}
		if status := stop(); status != ExitOK || strings.Contains(log.String(), "the-key-of-where") {
			t.Errorf("status %d, or the key is in the log: %s", status, log)
		}
	})
}

func TestRunASGIFastAPI(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		url, log, stop := runHTTPApp(t, copyApp(t, "asgi-fastapi"), environment)
		for _, e := range []exchange{
			{"GET", "/api/fruit/apple?ripe=true", "", 200, `{"name":"apple","ripe":true}`, "application/json"},
			{"GET", "/api/fruit/stone", "", 404, `{"detail":"that is not a fruit"}`, ""},
			{"POST", "/api/fruit", `{"name":"fig","weight":2}`, 200, `{"added":"fig","weight":2.0}`, ""},
			{"GET", "/api/scope?a=1", "", 200, `{"function":"http_app_func","id":true,"query":"a=1","agent":"test"}`, ""},
		} {
			e.check(t, url, "User-Agent", "test", "Content-Type", "application/json")
		}
		if got := request(t, "POST", url+"/api/fruit", "{}", "Content-Type", "application/json"); got.status != 422 {
			t.Errorf("%+v", got)
		}
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				if got, err := tryRequest(t, "GET", fmt.Sprintf("%s/api/fruit/apple?n=%d", url, i), ""); err != nil || got.status != 200 {
					t.Errorf("%+v, %v", got, err)
				}
			})
		}
		all.Wait()
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}

func TestRunWSGIFlask(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		q := queues{connection: emulatedStorage(t)}
		url, log, stop := runHTTPApp(t, copyApp(t, "wsgi-flask"), environment, "AzureWebJobsStorage="+q.connection)
		for _, e := range []exchange{
			{"GET", "/hello/ann?shout=1", "", 200, `{"name":"ann","shout":true}` + "\n", ""},
			{"POST", "/sum", "[1,2]", 200, `{"sum":3}` + "\n", ""},
			{"GET", "/missing", "", 410, "gone", ""},
		} {
			e.check(t, url, "Content-Type", "application/json")
		}
		if got := request(t, "GET", url+"/none", ""); got.status != 404 || !strings.Contains(got.body, "<title>404 Not Found</title>") {
			t.Errorf("%+v", got)
		}
		q.put(t, "web-jobs", "x")
		q.want(t, log, "web-done", "done x")
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}

// A drover.yaml beside host.json may set keys of single functions. Retries of host.json are not those
// of requests, and an app may have both.
func TestRunHTTPKeysBesideHost(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		dir := functionApp(t, map[string]string{
			"host.json":   `{"version": "2.0", "retry": {"strategy": "fixedDelay", "maxRetryCount": 3, "delayInterval": "00:00:01"}}`,
			"drover.yaml": "http: {keys: {master: \"${MASTER}\", functions: {secret: \"${SECRET}\"}}}\n",
			"function_app.py": appHead + "\n@app.route('secret')\ndef secret(req: func.HttpRequest) -> str: return 'granted'\n" +
				"\n@app.route('open', auth_level=func.AuthLevel.ANONYMOUS)\ndef free(req: func.HttpRequest) -> str: return 'open'\n",
		})
		const master, own = "mmmmmmmmmmmmmmmmmmmmmmmm", "ssssssssssssssssssssssss"
		url, log, stop := runHTTPApp(t, dir, environment, "MASTER="+master, "SECRET="+own)
		for path, want := range map[string]int{"/api/secret": 401, "/api/secret?code=wrong": 401, "/api/secret?code=" + own: 200, "/api/secret?code=" + master: 200, "/api/open": 200} {
			if got := request(t, "GET", url+path, ""); got.status != want {
				t.Errorf("%s: %+v", path, got)
			}
		}
		if status := stop(); status != ExitOK || strings.Contains(log.String(), own) || strings.Contains(log.String(), master) {
			t.Errorf("status %d, or a key is in the log: %s", status, log)
		}
	})
}

// The HTTP functions of the other example apps.
func TestRunOtherHTTP(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.10", func(t *testing.T, environment string) {
		storage := emulatedStorage(t)
		settings := []string{"AzureWebJobsStorage=" + storage, "AzureWebJobsSecondary=" + storage}
		url, log, stop := runHTTPApp(t, copyApp(t, "blueprints"), environment, settings...)
		exchange{"GET", "/api/ping", "", 200, "pong", ""}.check(t, url)
		exchange{"GET", "/api/reports/monday", "", 200, "report of monday", ""}.check(t, url)
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}

		url, log, stop = runHTTPApp(t, copyApp(t, "context-logging"), environment, settings...)
		const trace = "0af7651916cd43dd8448eb211c80319c"
		got := request(t, "GET", url+"/api/context", "", "traceparent", "00-"+trace+"-b7ad6b7169203331-01")
		wantAll(t, "the context", got.body, []string{`"function_name": "show"`, `"directory": "context-logging"`, `"traceparent": "00-` + trace, `"retry": 0`})
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}

		// The port of local.settings.json, and levels of the log by function.
		address := freePort(t)
		_, port, _ := strings.Cut(address, ":")
		dir := copyApp(t, "settings")
		file := filepath.Join(dir, "local.settings.json")
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, bytes.Replace(text, []byte("7171"), []byte(port), 1), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		log, stop = runApp(t, dir, environment, append(settings, "ASPNETCORE_URLS=")...)
		until(t, log, "the server listens", func() bool {
			got, err := tryRequest(t, "GET", "http://"+address+"/loud", "")
			return err == nil && got.status == 200
		})
		exchange{"GET", "/quiet", "", 200, "ok", ""}.check(t, "http://"+address)
		log.WaitFor(t, "information is logged here")
		log.WaitFor(t, "a warning is")
		if strings.Contains(log.String(), "information is not logged here") {
			t.Error("a line below the level is logged")
		}
		if status := stop(); status != ExitOK {
			t.Errorf("status %d: %s", status, log)
		}
	})
}
