package servicebus

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// Properties that a function sets on its output arrive with their types, at the scheduled time.
func TestWhatASenderSets(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.QueueOptions{})
	s, err := NewSender(access(b.ConnectionString(b.address)), "orders")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	send := func(p triggers.Properties) error {
		return errors.Join(s.Send(t.Context(), &triggers.Message{
			Body: []byte("x"), Origin: triggers.Known(p), Attributes: map[string]string{"n": "7", "text": "t"},
		}), s.Flush(t.Context()))
	}
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	if err := send(triggers.Properties{
		triggers.ScheduledAt: at.Format(time.RFC3339Nano), triggers.TimeToLive: "90", triggers.Subject: "s",
		triggers.ApplicationProperties: `{"n": 7, "f": 1.5, "b": true, "none": null}`,
	}); err != nil {
		t.Fatal(err)
	}
	r, err := b.client(t).NewReceiverForQueue("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.PeekMessages(t.Context(), 1, nil)
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	m := got[0]
	if m.ScheduledEnqueueTime == nil || !m.ScheduledEnqueueTime.Equal(at) || m.TimeToLive == nil || *m.TimeToLive != 90*time.Second || *m.Subject != "s" {
		t.Errorf("scheduled at %v, time to live %v", m.ScheduledEnqueueTime, m.TimeToLive)
	}
	if want := map[string]any{"n": int64(7), "f": 1.5, "b": true, "none": nil, "text": "t"}; !reflect.DeepEqual(m.ApplicationProperties, want) {
		t.Errorf("application properties %#v, want %#v", m.ApplicationProperties, want)
	}

	for _, test := range []struct{ name, value, want string }{
		{triggers.ScheduledAt, "soon", "not a time in RFC 3339"},
		{triggers.TimeToLive, "x", "not a number of seconds"},
		{triggers.ApplicationProperties, "[1]", "no JSON object"},
		{triggers.ApplicationProperties, `{"a": [1]}`, "the application property a is an object or a list"},
		{triggers.ApplicationProperties, `{"a": 1e999}`, "not a 64-bit number"},
	} {
		if err := send(triggers.Properties{test.name: test.value}); !errors.Is(err, triggers.ErrProperty) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %q: %v, want %q", test.name, test.value, err, test.want)
		}
	}
}
