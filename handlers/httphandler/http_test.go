package httphandler

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 3 * time.Minute

// start makes a handler and runs it until the test ends.
func start(t *testing.T, change func(c *Config)) *Handler {
	t.Helper()
	cfg := Config{Function: "f", Events: Binary, Slots: 4, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	change(&cfg)
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); h.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-ended
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// app serves until the test ends.
func app(t *testing.T, handle nethttp.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL
}

// room waits until the handler offers this many slots.
func room(t *testing.T, h *Handler, want int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); h.Slots().Capacity() != want; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it offers room for %d, want %d", h.Slots().Capacity(), want)
		}
	}
}

// looked waits until the handler has detected that the app is down.
func looked(t *testing.T, h *Handler) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		h.gate.mu.Lock()
		why := h.gate.why
		h.gate.mu.Unlock()
		if why != "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the app was not probed")
		}
	}
}

func TestTheRequest(t *testing.T) {
	type seen struct {
		header nethttp.Header
		body   []byte
	}
	got := make(chan seen, 1)
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.Header, body}
		_, _ = io.WriteString(w, "thanks")
	})
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	m := &triggers.Message{
		ID: "id 1", Body: []byte(`{"a": 1}`), Attempt: 3, Enqueued: at, Subject: "orders.new",
		Attributes: map[string]string{
			"Content-Type": "application/json", "traceparent": "00-a-b-01", "Customer": "Zoë", "Authorization": "Bearer stolen",
			"Bad Name": "x", "X-Injected": "a\r\nEvil: yes", "Long": strings.Repeat("x", longestAttribute+1), "Host": "elsewhere",
		},
	}
	h := start(t, func(c *Config) {
		c.URL, c.Headers = url+"/orders?x=1", map[string]string{"Authorization": "Bearer ours"}
	})
	out, err := h.Handle(t.Context(), m)
	if err != nil || string(out) != "thanks" {
		t.Fatalf("%q, %v", out, err)
	}
	s := <-got
	if string(s.body) != `{"a": 1}` {
		t.Errorf("the body is %q", s.body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Traceparent": "00-a-b-01", "Drover-Function": "f", "Drover-Attempt": "3", "Drover-Message-Id": "id%201",
		"Ce-Specversion": "1.0", "Ce-Id": "id%201", "Ce-Source": "/orders.new", "Ce-Type": "run.drover.message", "Ce-Subject": "orders.new",
		"Ce-Time": "2026-01-02T03:04:05.000006Z", "Drover-Attribute-Customer": "Zo%C3%AB", "Authorization": "Bearer ours",
		"Drover-Attribute-Authorization": "Bearer%20stolen", "Drover-Attribute-X-Injected": "a%0D%0AEvil:%20yes", "Evil": "", "Drover-Attribute-Long": "",
	} {
		if got := s.header.Get(name); got != want {
			t.Errorf("the header %s is %q, want %q", name, got, want)
		}
	}

	h = start(t, func(c *Config) { c.URL, c.Events = url, Structured })
	if _, err := h.Handle(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	s = <-got
	var event map[string]any
	if err := json.Unmarshal(s.body, &event); err != nil || event["id"] != "id 1" || event["specversion"] != "1.0" || event["datacontenttype"] != "application/json" {
		t.Errorf("the event is %s, %v", s.body, err)
	}
	if data, _ := event["data"].(map[string]any); data["a"] != 1.0 || s.header.Get("Ce-Id") != "" || !strings.HasPrefix(s.header.Get("Content-Type"), "application/cloudevents+json") {
		t.Errorf("the event is %s, its headers %v", s.body, s.header)
	}
	for contentType, want := range map[string]string{"text/plain": `"data":"\u0026ok"`, "image/png": `"data_base64":"Jm9r"`, "": `"data_base64":"Jm9r"`, "no type": `"data_base64"`} {
		if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1", Body: []byte("&ok"), Attributes: map[string]string{"Content-Type": contentType}}); err != nil {
			t.Fatal(err)
		}
		if s = <-got; !bytes.Contains(s.body, []byte(want)) {
			t.Errorf("%s: the event is %s, want %s in it", contentType, s.body, want)
		}
	}

	h = start(t, func(c *Config) { c.URL, c.Events = url, Plain })
	if _, err := h.Handle(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if s = <-got; s.header.Get("Ce-Id") != "" || string(s.body) != `{"a": 1}` {
		t.Errorf("plain: %s, %v", s.body, s.header)
	}
}

func TestWhatAnswersMean(t *testing.T) {
	var status atomic.Int64
	var after atomic.Value
	after.Store("")
	url := app(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		if a, _ := after.Load().(string); a != "" {
			w.Header().Set("Retry-After", a)
		}
		w.WriteHeader(int(status.Load()))
		if s := status.Load(); s != 204 && s != 304 {
			_, _ = io.WriteString(w, "because\nof this")
		}
	})
	for _, c := range []struct {
		status  int
		after   string
		verdict Verdict
		delay   time.Duration // negative: none was requested
	}{
		{200, "", Done, -1}, {202, "", Done, -1}, {204, "", Done, -1},
		{400, "", Reject, -1}, {409, "", Reject, -1}, {413, "", Reject, -1}, {422, "", Reject, -1},
		{408, "", Retry, -1}, {425, "", Retry, -1}, {500, "", Retry, -1}, {503, "7", Retry, 7 * time.Second}, {429, "Mon, 02 Jan 2006 15:04:05 GMT", Retry, 0},
		{503, "soon", Retry, -1}, {503, "99999999999", Retry, 24 * time.Hour}, {503, "-5", Retry, -1},
		{301, "", Pause, -1}, {401, "", Pause, -1}, {403, "", Pause, -1}, {404, "", Pause, -1}, {405, "", Pause, -1},
		{418, "", Done, -1}, {451, "", Pause, -1}, // as configured
	} {
		status.Store(int64(c.status))
		after.Store(c.after)
		h := start(t, func(cfg *Config) { cfg.URL, cfg.Verdicts = url, map[int]Verdict{418: Done, 451: Pause} })
		room(t, h, 4)
		out, err := h.Handle(t.Context(), &triggers.Message{ID: "1"})
		var got Verdict
		switch {
		case err == nil:
			got = Done
		case handlers.Rejected(err):
			got = Reject
		case errors.Is(err, handlers.ErrNotTried):
			got = Pause
		default:
			got = Retry
		}
		if got != c.verdict {
			t.Errorf("%d: %s (%v), want %s", c.status, got, err, c.verdict)
		}
		if err == nil && c.status == 204 && out != nil {
			t.Errorf("%d: the output is %q, want none", c.status, out)
		}
		delay, asked := handlers.RetryDelay(err)
		if !asked {
			delay = -1
		}
		if delay != c.delay {
			t.Errorf("%d, Retry-After %q: %v, want %v", c.status, c.after, delay, c.delay)
		}
		var failure *handlers.Failure
		if errors.As(err, &failure) && (!strings.HasSuffix(failure.Summary, ": because") || failure.Detail != "because\nof this") {
			t.Errorf("%d: the failure is %+v", c.status, failure)
		}
		want := 4
		if c.verdict == Pause {
			want = 0
		}
		if n := h.Slots().Capacity(); n != want {
			t.Errorf("%d: it offers room for %d afterwards, want %d", c.status, n, want)
		}
	}
}

// An app that is down costs no attempt, and is detected when it is up.
func TestAnAppThatIsDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h := start(t, func(c *Config) { c.URL = "http://" + address })
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); !errors.Is(err, handlers.ErrNotTried) {
		t.Errorf("got %v", err)
	}
	if n := h.Slots().Capacity(); n != 0 {
		t.Errorf("it offers room for %d", n)
	}
	looked(t, h)
	if l, err = net.Listen("tcp", address); err != nil {
		t.Skip("somebody else has taken the port:", err)
	}
	s := &httptest.Server{Listener: l, Config: &nethttp.Server{ReadHeaderTimeout: patience, Handler: nethttp.HandlerFunc(func(nethttp.ResponseWriter, *nethttp.Request) {})}}
	s.Start()
	defer s.Close()
	room(t, h, 1) // one tries
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err != nil {
		t.Error(err)
	}
	room(t, h, 4)
}

// Nothing is received before the app reports that it is ready.
func TestReadiness(t *testing.T) {
	var ready atomic.Bool
	asked := make(chan struct{}, 100)
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/ready" {
			asked <- struct{}{}
			if !ready.Load() {
				w.WriteHeader(503)
			}
		}
	})
	h := start(t, func(c *Config) { c.URL, c.Ready = url+"/f", url+"/ready" })
	<-asked
	<-asked
	if n := h.Slots().Capacity(); n != 0 {
		t.Errorf("it offers room for %d", n)
	}
	ready.Store(true)
	room(t, h, 1)
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err != nil {
		t.Error(err)
	}
	room(t, h, 4)
}

// Consecutive failures close the gate; then single messages probe the app.
func TestTheCircuitBreaker(t *testing.T) {
	var well atomic.Bool
	url := app(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		if !well.Load() {
			w.WriteHeader(500)
		}
	})
	h := start(t, func(c *Config) { c.URL = url })
	room(t, h, 4)
	for range tripAfter {
		if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err == nil {
			t.Fatal("no error")
		}
	}
	room(t, h, 1) // by way of 0
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err == nil {
		t.Fatal("no error")
	}
	well.Store(true)
	room(t, h, 1)
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err != nil {
		t.Fatal(err)
	}
	room(t, h, 4)
}

func TestFaultsOfAnApp(t *testing.T) {
	mode := make(chan string, 1)
	var took atomic.Int64 // of 10 GB
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		switch <-mode {
		case "huge":
			chunk := bytes.Repeat([]byte("x"), 64<<10)
			for range 10 << 30 / len(chunk) { // or until the reader is gone
				n, err := w.Write(chunk)
				if took.Add(int64(n)); err != nil {
					return
				}
			}
		case "cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
			conn, _, err := w.(nethttp.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		case "slow":
			<-r.Context().Done()
		}
	})
	h := start(t, func(c *Config) { c.URL = url })
	room(t, h, 4)
	for _, c := range []struct{ mode, want string }{{"huge", "more than max_response (1048576) bytes"}, {"cut", "EOF"}} {
		mode <- c.mode
		_, err := h.Handle(t.Context(), &triggers.Message{ID: "1"})
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, handlers.ErrNotTried) || handlers.Rejected(err) {
			t.Errorf("%s: %v, want a failed attempt with %q", c.mode, err, c.want)
		}
	}
	if n := took.Load(); n > 64<<20 {
		t.Errorf("%d bytes of a huge answer were taken", n)
	}
	mode <- "slow"
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Handle(ctx, &triggers.Message{ID: "1"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow: %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &nethttp.Server{ReadHeaderTimeout: patience, Handler: nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
	})}}
	s.Start()
	defer s.Close()
	h := start(t, func(c *Config) { c.URL, c.Ready = "unix:"+path+":/orders", "unix:"+path+":/ready" })
	room(t, h, 4)
	if out, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err != nil || string(out) != "/orders" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) { _, _ = io.WriteString(w, r.Proto) }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.StartTLS()
	defer s.Close()
	h := start(t, func(c *Config) { c.URL = s.URL })
	room(t, h, 4)
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); !errors.Is(err, handlers.ErrNotTried) || h.Slots().Capacity() != 0 {
		t.Errorf("a certificate that nobody trusts: %v, and room for %d", err, h.Slots().Capacity())
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	h = start(t, func(c *Config) { c.URL, c.TLS = s.URL, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12} })
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err != nil {
		t.Errorf("with its root: %v", err)
	}
}

// An app that requires a client certificate answers clients that have one.
func TestClientCertificates(t *testing.T) {
	s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.Organization[0])
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	with := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, Certificates: s.TLS.Certificates}
	h := start(t, func(c *Config) { c.URL, c.TLS = s.URL, with })
	if out, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err != nil || string(out) != "Acme Co" {
		t.Errorf("with a certificate: %q, %v", out, err)
	}
	without := with.Clone()
	without.Certificates = nil
	h = start(t, func(c *Config) { c.URL, c.TLS = s.URL, without })
	room(t, h, 4)
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); kindOf(err) != Pause || h.Slots().Capacity() != 0 {
		t.Errorf("without: %v, and room for %d", err, h.Slots().Capacity())
	}
}

func TestTLSWhereThereIsNone(t *testing.T) {
	url := app(t, func(nethttp.ResponseWriter, *nethttp.Request) {})
	h := start(t, func(c *Config) { c.URL = strings.Replace(url, "http:", "https:", 1) })
	room(t, h, 4)
	if _, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); kindOf(err) != Pause || h.Slots().Capacity() != 0 {
		t.Errorf("%v, and room for %d", err, h.Slots().Capacity())
	}
}

func TestHTTP2WithoutTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) { _, _ = io.WriteString(w, r.Proto) }))
	s.Config.Protocols = new(nethttp.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	h := start(t, func(c *Config) { c.URL, c.HTTP2 = s.URL, true })
	if out, err := h.Handle(t.Context(), &triggers.Message{ID: "1"}); err != nil || string(out) != "HTTP/2.0" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestURLs(t *testing.T) {
	for text, good := range map[string]bool{
		"http://127.0.0.1:8080/orders": true, "https://app.example/x?y=z": true, "unix:/run/app.sock:/orders": true,
		"127.0.0.1:8080": false, "ftp://a/b": false, "unix:/run/app.sock": false, "unix:app.sock:/x": false, "http://u:p@host/": false, "http:///x": false, "": false, "http://%zz": false,
	} {
		if _, err := New(Config{URL: text, Slots: 1}); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := New(Config{URL: "http://a/", Ready: text, Slots: 1}); (err == nil) != (good || text == "") {
			t.Errorf("ready %q: %v", text, err)
		}
	}
}
