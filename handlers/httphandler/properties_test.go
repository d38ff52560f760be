package httphandler

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	nethttp "net/http"
	"slices"
	"testing"

	"github.com/drover-run/drover/triggers"
)

// taker is a context that takes the properties of an output.
type taker struct {
	context.Context
	got triggers.Properties
}

func (k *taker) Describe(p triggers.Properties) { k.got = p }

// The content type and the other properties of a message reach the app, and those of its answer
// reach the output.
func TestProperties(t *testing.T) {
	seen := make(chan *nethttp.Request, 1)
	body := make(chan []byte, 1)
	url := app(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		seen <- r
		body <- text
		w.Header().Set("Content-Type", "text/csv")
		w.Header().Set("Drover-Property-Correlation-Id", "c%201")
		w.Header().Set("Drover-Property-Sequence-Number", "9") // not a function's to set
		w.Header()["Drover-Attribute-N"] = []string{"7", "8"}  // the first counts
		_, _ = w.Write([]byte("a,b"))
	})
	m := &triggers.Message{
		ID: "j1", Attempt: 1, Body: []byte(`{"a":1}`), Attributes: map[string]string{"content-type": "text/plain", "many": "1"}, Repeated: map[string][]string{"many": {"1", "2"}},
		Origin: triggers.Known{triggers.ContentType: "application/json", triggers.CorrelationID: "käse 1", triggers.ReplyTo: "answers", triggers.SequenceNumber: "7"},
	}
	for _, events := range []Events{Binary, Plain, Structured} {
		h := start(t, func(c *Config) {
			c.URL, c.Events = url, events
		})
		room(t, h, 4)
		ctx := &taker{Context: t.Context()}
		if out, err := h.Handle(ctx, m); err != nil || string(out) != "a,b" {
			t.Fatalf("%s: %q, %v", events, out, err)
		}
		r, text := <-seen, <-body
		if r.Header.Get("Drover-Property-Correlation-Id") != "k%C3%A4se%201" || r.Header.Get("Drover-Property-Reply-To") != "answers" || r.Header.Get("Drover-Property-Sequence-Number") != "7" ||
			!slices.Equal(r.Header.Values("Drover-Attribute-many"), []string{"1", "2"}) {
			t.Errorf("%s: the headers %v", events, r.Header)
		}
		if want := (triggers.Properties{triggers.ContentType: "text/csv", triggers.CorrelationID: "c 1", "attribute:N": "7"}); !maps.Equal(ctx.got, want) {
			t.Errorf("%s: the output has %v, want %v", events, ctx.got, want)
		}
		if events != Structured {
			if got := r.Header.Get("Content-Type"); got != "application/json" || string(text) != `{"a":1}` {
				t.Errorf("%s: %s %s", events, got, text)
			}
			continue
		}
		var event struct {
			Type string          `json:"datacontenttype"`
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(text, &event); err != nil || event.Type != "application/json" || string(event.Data) != `{"a":1}` {
			t.Errorf("%s, %v", text, err)
		}
	}
}
