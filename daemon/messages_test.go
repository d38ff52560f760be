package daemon

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/daemontest"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// post posts a body to a daemon's socket, with a content type unless that is empty.
func post(t *testing.T, cfg *configs.Config, path, contentType string, body io.Reader) (int, string) {
	t.Helper()
	var headers []string
	if contentType != "" {
		headers = []string{"Content-Type: " + contentType}
	}
	return daemontest.Send(t, admin.SocketPath(cfg.DataDir), http.MethodPost, path, body, headers...)
}

// The body, the content type and the query of a request become a message.
func TestSendMessage(t *testing.T) {
	got := make(chan *triggers.Message, 1)
	_, _, cfg := runsFunc(t, func(_ context.Context, m *triggers.Message) ([]byte, error) {
		got <- m
		return nil, nil
	}, nil)
	sent := func(query, contentType, body string) (api.Sent, *triggers.Message) {
		t.Helper()
		status, text := post(t, cfg, "/v1/functions/f/messages"+query, contentType, strings.NewReader(body))
		var sent api.Sent
		if err := json.Unmarshal([]byte(text), &sent); err != nil || status != http.StatusOK {
			t.Fatalf("%d: %s, %v", status, text, err)
		}
		m := <-got
		if string(m.Body) != body || m.ID != sent.ID || sent.Function != "f" {
			t.Errorf("sent %+v, received %+v", sent, m)
		}
		return sent, m
	}
	if _, m := sent("?header=album=pets&header=a=b=c&property=correlation_id=7&session=s&subject=x&id=m1", "application/json", `{"id": 7}`); m.ID != "m1" ||
		m.Attributes["album"] != "pets" || m.Attributes["a"] != "b=c" || m.Property(triggers.CorrelationID) != "7" || m.OrderingKey != "s" || m.Subject != "x" ||
		m.Property(triggers.ContentType) != "application/json" {
		t.Errorf("received %+v with %v", m, m.Properties())
	}
	if _, m := sent("", "application/x-www-form-urlencoded", "plain"); m.Properties() != nil {
		t.Errorf("curl's type is kept: %v", m.Properties())
	}
	if _, m := sent("?property=content_type=text/csv", "text/plain", ""); m.Property(triggers.ContentType) != "text/csv" {
		t.Errorf("received %v", m.Properties())
	}
	begin := time.Now()
	s, m := sent("?delay=300ms", "", "later")
	if time.Now().Before(s.ScheduledAt) || s.ScheduledAt.Before(begin.Add(300*time.Millisecond)) || !m.Enqueued.After(begin) {
		t.Errorf("sent %+v at %v, received at %v", s, begin, time.Now())
	}
}

func TestSendMessageRefused(t *testing.T) {
	_, _, cfg := adminDaemon(t, func(cfg *configs.Config) {
		f := cfg.Functions["f"]
		f.MaxBody = 8
		cfg.Functions["f"] = f
	})
	for _, c := range []struct {
		path, body string
		want       int
		says       string
	}{
		{"g/messages", "", 404, `there is no function \"g\"`},
		{"f/messages?headers=a=b", "", 400, `unknown parameter \"headers\"; the parameters are header, property, id, session, subject, at, delay`},
		{"f/messages?id=1&id=2", "", 400, "id is given 2 times"},
		{"f/messages?header=a", "", 400, `header is \"a\"; write it as NAME=VALUE`},
		{"f/messages?header=a=1&header=a=2", "", 400, "each name only once"},
		{"f/messages?property=sequence_number=1", "", 400, `\"sequence_number\" is not a property that a sender can set; these are content_type,`},
		{"f/messages?property=message_id=1&id=2", "", 400, "message_id is set by two parameters"},
		{"f/messages?property=scheduled_at=2126-01-31T08:00:00Z&delay=1s", "", 400, "scheduled_at is set by two parameters"},
		{"f/messages?property=scheduled_at=tomorrow", "", 400, "which is not a time in RFC 3339"},
		{"f/messages?at=2126-01-31T08:00:00Z&delay=1s", "", 400, "give at or delay, not both"},
		{"f/messages?at=tomorrow", "", 400, `at is \"tomorrow\"; write it as 2026-01-31T08:00:00Z`},
		{"f/messages?at=2020-01-31T08:00:00Z", "", 400, "2020-01-31T08:00:00Z is in the past"},
		{"f/messages?delay=-1s", "", 400, `delay is \"-1s\"; write it as 30s or 2h`},
		{"f/messages?delay=soon", "", 400, `delay is \"soon\"`},
		{"f/messages?a%zz", "", 400, "the query cannot be read"},
		{"f/messages", "123456789", 413, "the body has 9 bytes, but function f takes at most 8"},
		{"f/messages", "12345678", 200, `"id"`},
	} {
		if status, text := post(t, cfg, "/v1/functions/"+c.path, "", strings.NewReader(c.body)); status != c.want || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d, %s; want %d, %s", c.path, status, text, c.want, c.says)
		}
	}
	// A body of unknown length.
	chunks := io.MultiReader(strings.NewReader("12345"), strings.NewReader("6789"))
	if status, text := post(t, cfg, "/v1/functions/f/messages", "", chunks); status != 413 || !strings.Contains(text, "more than 8 bytes") {
		t.Errorf("a body in chunks: %d, %s", status, text)
	}
}

// onlyReceives is a trigger that accepts no messages.
type onlyReceives struct{ triggers.Trigger }

func TestSendMessageToATriggerOfTheProgram(t *testing.T) {
	queue := memory.New(time.Hour)
	t.Cleanup(queue.Close)
	_, cfg := daemonOn(t, onlyReceives{queue.Trigger()}, func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }, nil)
	if status, text := post(t, cfg, "/v1/functions/f/messages", "", nil); status != 422 || !strings.Contains(text, "function f receives from a trigger of the program, which does not accept messages") {
		t.Errorf("%d: %s", status, text)
	}
}
