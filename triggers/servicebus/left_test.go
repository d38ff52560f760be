package servicebus

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease/record"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// recorded is the source of a record of leases, for one daemon.
func recorded(t *testing.T, dir string) (*record.Record, *record.Source) {
	t.Helper()
	r, err := record.Open(filepath.Join(dir, "leases"), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return r, r.Source("orders")
}

// What was in flight when a daemon was killed comes to the next one long before its lock ends, without an
// attempt. A message that was settled does not come, and one that waits for its retry waits on. A token of an
// earlier lock releases nothing.
func TestMessagesOfAKilledDaemon(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.QueueOptions{LockDuration: 5 * time.Minute, MaxDeliveryCount: 1000})
	b.send(t, triggers.Message{Body: []byte("settled")}, triggers.Message{Body: []byte("retried")}, triggers.Message{Body: []byte("0")}, triggers.Message{Body: []byte("1")})
	dir := t.TempDir()
	r, source := recorded(t, dir)
	open := func(s *record.Source) *trigger {
		return b.open(t, func(c *Config) { c.Record, c.Prefetch = s, 0 })
	}
	killed := open(source)
	held := receive(t, killed, 4)
	settle(t, held[0], triggers.Done)
	if err := held[1].Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	// The connection breaks, and the record is written: nothing else is changed by the end of this trigger.
	_ = killed.entities[0].current.Load().client.Close(t.Context())
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	r, source = recorded(t, dir)
	next := open(source)
	var came []*triggers.Delivery
	for _, d := range receive(t, next, 2) {
		if body := string(d.Message.Body); body != "0" && body != "1" || d.Message.Attempt != 1 {
			t.Errorf("message %s at attempt %d", body, d.Message.Attempt)
		}
		came = append(came, d)
	}

	t.Logf("received %v after the start", time.Since(began))

	dir = t.TempDir()
	stale, old := recorded(t, dir)
	token := held[2].Message.Origin.(*convert.Origin).Of.LockToken
	old.Hold(new(record.Entry), "orders", string(token[:]), time.Now().Add(time.Hour))
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	stale, old = recorded(t, dir)
	other := open(old)
	b.send(t, triggers.Message{Body: []byte("2")})
	if got := receive(t, other, 1)[0]; string(got.Message.Body) != "2" {
		t.Errorf("message %s was taken from its receiver", got.Message.Body)
	}
	for _, d := range came {
		settle(t, d, triggers.Done)
	}
	for _, r := range []*record.Record{r, stale} {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
