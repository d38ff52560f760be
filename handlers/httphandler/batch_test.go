package httphandler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	nethttp "net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// outcome is what Handle returned.
type outcome struct {
	out string
	err error
}

// handleAll handles messages at once, and returns their outcomes in order.
func handleAll(ctx context.Context, h *Handler, ms ...*triggers.Message) []outcome {
	out := make([]outcome, len(ms))
	var all sync.WaitGroup
	for i, m := range ms {
		all.Go(func() {
			text, err := h.Handle(ctx, m)
			out[i] = outcome{string(text), err}
		})
	}
	all.Wait()
	return out
}

func numbered(n int) []*triggers.Message {
	ms := make([]*triggers.Message, n)
	for i := range ms {
		ms[i] = &triggers.Message{ID: fmt.Sprint(i), Body: []byte(fmt.Sprintf(`{"n":%d}`, i)), Attempt: 1, Attributes: map[string]string{"Content-Type": "application/json"}}
	}
	return ms
}

// idsOf reads the ids of a JSON batch.
func idsOf(t *testing.T, r *nethttp.Request) []string {
	var events []struct{ ID string }
	if err := json.NewDecoder(r.Body).Decode(&events); err != nil {
		t.Error(err)
	}
	var ids []string
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids
}

func kindOf(err error) Verdict {
	switch {
	case err == nil:
		return Done
	case handlers.Rejected(err):
		return Reject
	case errors.Is(err, handlers.ErrNotTried):
		return Pause
	}
	return Retry
}

// Messages in flight share a request, and each has its own result.
func TestABatch(t *testing.T) {
	var header nethttp.Header
	var body []byte
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		header = r.Header
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"results": [
			{"id": "0", "output": "text"}, {"id": "1", "status": 200, "output": {"a": 1}}, {"id": "2", "output_base64": "/wA="},
			{"id": "3", "status": 503, "retry_after": 7, "error": "later"}, {"id": "4", "status": 422, "error": "bad"},
			{"id": "5", "error": "oh"}, {"id": "6", "status": 404}, {"id": "7", "status": 302}, {"id": "8", "status": 418},
			{"id": "9", "output_base64": "?"}, {"id": "stranger"}]}`)
	})
	h := start(t, func(c *Config) {
		c.URL, c.Slots, c.Verdicts = url, 20, map[int]Verdict{418: Done}
		c.Batch = &Batch{Max: 11, MaxBytes: 1 << 20, Wait: time.Hour}
	})
	room(t, h, 20)
	ms := numbered(11)
	ms[0].Attributes["Customer-Id"], ms[0].Attributes["id"], ms[0].Attempt = "42", "evil", 3
	got := handleAll(t.Context(), h, ms...)
	for i, want := range []struct {
		verdict   Verdict
		out, text string
	}{
		{Done, "text", ""}, {Done, `{"a": 1}`, ""}, {Done, "\xff\x00", ""}, {Retry, "", "503 for it: later"}, {Reject, "", "422 for it: bad"},
		{Retry, "", "500 for it: oh"}, {Reject, "", "404"}, {Retry, "", "302"}, {Done, "", ""}, {Retry, "", "output_base64"}, {Retry, "", "no result for it"},
	} {
		if g := got[i]; kindOf(g.err) != want.verdict || g.out != want.out || g.err != nil && !strings.Contains(g.err.Error(), want.text) {
			t.Errorf("%d: %q, %v, want %v", i, g.out, g.err, want)
		}
	}
	if after, asked := handlers.RetryDelay(got[3].err); !asked || after != 7*time.Second {
		t.Errorf("retry_after is %v", after)
	}
	if header.Get("Content-Type") != "application/cloudevents-batch+json; charset=utf-8" || header.Get("Drover-Batch") != "11" || header.Get("Drover-Function") != "f" {
		t.Errorf("the headers are %v", header)
	}
	var events []map[string]any
	if err := json.Unmarshal(body, &events); err != nil || len(events) != 11 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	i := slices.IndexFunc(events, func(e map[string]any) bool { return e["id"] == "0" })
	if i < 0 || fmt.Sprint(events[i]["data"]) != "map[n:0]" || events[i]["customerid"] != "42" || events[i]["droverattempt"] != 3.0 || events[i]["specversion"] != "1.0" {
		t.Errorf("the events are %s", body)
	}
	room(t, h, 20)
}

func TestABatchWithoutEvents(t *testing.T) {
	bodies := make(chan string, 1)
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- r.Header.Get("Content-Type") + " " + string(body)
		_, _ = io.WriteString(w, "ok") // without results of single messages
	})
	h := start(t, func(c *Config) { c.URL, c.Events, c.Batch = url, Plain, &Batch{Max: 1, MaxBytes: 1 << 20} })
	m := &triggers.Message{ID: "1", Attempt: 2, Subject: "s", Enqueued: time.Unix(0, 0), Body: []byte{0xff}, Attributes: map[string]string{"k": "v"}}
	if _, err := h.Handle(t.Context(), m); err != nil {
		t.Error(err)
	}
	want := `application/json [{"id":"1","attempt":2,"subject":"s","enqueued":"1970-01-01T00:00:00Z","content_type":"application/octet-stream","attributes":{"k":"v"},"data_base64":"/w=="}]`
	if got := <-bodies; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestAMultipartBatch(t *testing.T) {
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || kind != "multipart/mixed" {
			t.Errorf("%s, %v", kind, err)
		}
		parts := multipart.NewReader(r.Body, params["boundary"])
		var results []map[string]any
		for {
			p, err := parts.NextRawPart()
			if err != nil {
				break
			}
			body, _ := io.ReadAll(p)
			results = append(results, map[string]any{"id": p.Header.Get("Ce-Id"), "output": string(body) + p.Header.Get("Drover-Attribute-K") + p.Header.Get("Content-Type")})
		}
		_ = json.NewEncoder(w).Encode(results)
	})
	h := start(t, func(c *Config) {
		c.URL, c.Batch = url, &Batch{Max: 2, MaxBytes: 1 << 20, Wait: time.Hour, Multipart: true}
	})
	room(t, h, 4)
	got := handleAll(t.Context(), h,
		&triggers.Message{ID: "1", Body: []byte("\r\n--x\x00"), Attributes: map[string]string{"k": "a\r\nb"}},
		&triggers.Message{ID: "2", Body: []byte("{}"), Attributes: map[string]string{"Content-Type": "application/json"}})
	if want := []outcome{{"\r\n--x\x00a%0D%0Abapplication/octet-stream", nil}, {"{}application/json", nil}}; !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

// A batch is sent when it is full by number or bytes, when its time is up, when a message has an ID
// that it already has, and when no further message can come.
func TestWhenABatchGoes(t *testing.T) {
	for _, c := range []struct {
		name     string
		batch    Batch
		slots    int
		messages []*triggers.Message
		want     []int // requests, by how many they had
	}{
		{"number", Batch{Max: 3, MaxBytes: 1 << 20, Wait: time.Hour}, 10, numbered(6), []int{3, 3}},
		{"time", Batch{Max: 100, MaxBytes: 1 << 20, Wait: time.Millisecond}, 10, numbered(1), []int{1}},
		{"no more slots", Batch{Max: 100, MaxBytes: 1 << 20, Wait: time.Hour}, 5, numbered(5), []int{5}},
		{"bytes", Batch{Max: 100, MaxBytes: 1, Wait: time.Hour}, 3, numbered(3), []int{1, 1, 1}},
		{"the same id", Batch{Max: 100, MaxBytes: 1 << 20, Wait: time.Hour}, 2, append(numbered(1), numbered(1)...), []int{1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var sizes []int
			all := make(chan struct{}) // closed when all are there: batches overlap
			seen := 0
			url := app(t, func(_ nethttp.ResponseWriter, r *nethttp.Request) {
				n := len(idsOf(t, r))
				mu.Lock()
				sizes = append(sizes, n)
				if seen += n; seen == len(c.messages) {
					close(all)
				}
				mu.Unlock()
				select {
				case <-all:
				case <-r.Context().Done():
				}
			})
			h := start(t, func(cfg *Config) { cfg.URL, cfg.Slots, cfg.Batch = url, c.slots, &c.batch })
			room(t, h, c.slots)
			for _, o := range handleAll(t.Context(), h, c.messages...) {
				if o.err != nil {
					t.Error(o.err)
				}
			}
			if slices.Sort(sizes); !slices.Equal(sizes, c.want) {
				t.Errorf("requests with %v, want %v", sizes, c.want)
			}
		})
	}
}

// A message whose time is up leaves its batch; the others are answered. When all have left, the
// request ends.
func TestLeavingABatch(t *testing.T) {
	came, let, gone := make(chan struct{}, 9), make(chan struct{}), make(chan struct{}, 9)
	url := app(t, func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		_ = idsOf(t, r)
		came <- struct{}{}
		select {
		case <-let:
		case <-r.Context().Done():
			gone <- struct{}{}
		}
	})
	h := start(t, func(c *Config) { c.URL, c.Batch = url, &Batch{Max: 2, MaxBytes: 1 << 20, Wait: time.Hour} })
	room(t, h, 4)
	ms := numbered(2)
	short, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := h.Handle(short, ms[0]); first <- err }()
	go func() { _, err := h.Handle(t.Context(), ms[1]); second <- err }()
	<-came
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that left: %v", err)
	}
	close(let)
	if err := <-second; err != nil {
		t.Errorf("the one that stayed: %v", err)
	}

	let = make(chan struct{}) // by nobody
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for _, o := range handleAll(ctx, h, ms...) {
		if !errors.Is(o.err, context.DeadlineExceeded) {
			t.Errorf("a slow app: %v", o.err)
		}
	}
	<-gone
	// One alone is in no request before its time has come.
	alone, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := h.Handle(alone, ms[0]); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	h.batch.mu.Lock()
	defer h.batch.mu.Unlock()
	if h.batch.open != nil || h.batch.inHandle != 0 || h.gate.failures != 1 {
		t.Errorf("left behind: %+v, %d inside, %d failures", h.batch.open, h.batch.inHandle, h.gate.failures)
	}
}

// An error response applies to the whole batch, but it never rejects a batch because of one of its
// messages.
func TestABatchThatFails(t *testing.T) {
	mode := ""
	requests := 0
	var mu sync.Mutex
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		ids := idsOf(t, r)
		mu.Lock()
		defer mu.Unlock()
		requests++
		switch mode {
		case "down":
			w.Header().Set("Retry-After", "9")
			w.WriteHeader(503)
		case "lost":
			w.WriteHeader(404)
		case "bad":
			if slices.Contains(ids, "2") {
				w.WriteHeader(422)
			}
		case "garbled":
			_, _ = io.WriteString(w, `{"results": [`)
		case "twice":
			_, _ = io.WriteString(w, `[{"id": "1"}, {"id": "1", "error": "x"}]`)
		case "none":
			_, _ = io.WriteString(w, `{"results": []}`)
		case "well":
			_, _ = io.WriteString(w, `{"note": "no results"}`)
		}
	})
	h := start(t, func(c *Config) { c.URL, c.Batch = url, &Batch{Max: 4, MaxBytes: 1 << 20, Wait: time.Hour} })
	room(t, h, 4)
	for _, c := range []struct {
		mode     string
		want     [4]Verdict
		requests int
	}{
		{"down", [4]Verdict{Retry, Retry, Retry, Retry}, 1},
		{"bad", [4]Verdict{Done, Done, Reject, Done}, 5},
		{"garbled", [4]Verdict{Retry, Retry, Retry, Retry}, 1},
		{"twice", [4]Verdict{Retry, Retry, Retry, Retry}, 1},
		{"none", [4]Verdict{Retry, Retry, Retry, Retry}, 1},
		{"well", [4]Verdict{Done, Done, Done, Done}, 1},
		{"lost", [4]Verdict{Pause, Pause, Pause, Pause}, 1},
	} {
		mu.Lock()
		mode, requests = c.mode, 0
		mu.Unlock()
		for i, o := range handleAll(t.Context(), h, numbered(4)...) {
			if kindOf(o.err) != c.want[i] {
				t.Errorf("%s: %d: %v, want %s", c.mode, i, o.err, c.want[i])
			}
			if after, _ := handlers.RetryDelay(o.err); c.mode == "down" && after != 9*time.Second {
				t.Errorf("it is tried again after %v", after)
			}
		}
		if requests != c.requests {
			t.Errorf("%s: %d requests, want %d", c.mode, requests, c.requests)
		}
	}
	if n := h.Slots().Capacity(); n != 0 {
		t.Errorf("it offers room for %d while misconfigured", n)
	}
}
