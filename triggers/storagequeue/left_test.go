package storagequeue

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease/record"
)

func openRecord(t *testing.T, dir string) *record.Record {
	t.Helper()
	r, err := record.Open(filepath.Join(dir, "leases"), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// openRecorded opens a trigger whose leases end in no test: only what is released comes again.
func (a *account) openRecorded(t *testing.T, queue string, r *record.Record) *trigger {
	t.Helper()
	return a.open(t, queue, func(c *Config) { c.Record, c.Lease, c.Prefetch = r, time.Hour, 0 })
}

// What was in flight when a daemon was killed comes to the next one long before its lease ends, without an
// attempt. A message that was settled does not come, and one that waits for its retry waits on. With the
// receipts of earlier deliveries nothing is released, so no message is taken from another receiver.
func TestMessagesOfAKilledDaemon(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue, dir := a.newQueue(t), t.TempDir()
		a.send(t, queue, "settled", "retried", "0", "renewed")
		r := openRecord(t, dir)
		killed := a.openRecorded(t, queue, r)
		held := make(map[string]*triggers.Delivery)
		for _, d := range receive(t, killed, 4) {
			held[string(d.Message.Body)] = d
		}
		done(t, held["settled"])
		settle(t, held["retried"], triggers.Verdict{Kind: triggers.Retry, Delay: time.Hour})
		l := held["renewed"].Message.Origin.(*leasedMessage)
		killed.keeper.Renew(t.Context(), &l.Item, l.renew) // the receipt is another one now
		killed.crash()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		r = openRecord(t, dir)
		next := a.openRecorded(t, queue, r)
		came := make(map[string]*triggers.Delivery)
		for _, d := range receive(t, next, 2) {
			came[string(d.Message.Body)] = d
			if d.Message.Attempt != 1 {
				t.Errorf("message %s is at attempt %d", d.Message.Body, d.Message.Attempt)
			}
		}
		t.Logf("received %v after the start", time.Since(began))
		if came["0"] == nil || came["renewed"] == nil {
			t.Fatalf("received: %v", came)
		}

		// A record that is old: the living trigger has the messages in it, with other receipts.
		dir = t.TempDir()
		stale := openRecord(t, dir)
		s := stale.Source("storage queue " + next.key)
		s.Hold(new(record.Entry), l.message.ID, l.delivered, time.Now().Add(time.Hour))
		s.Hold(new(record.Entry), "no-such-message", l.receipt, time.Now().Add(time.Hour))
		if err := stale.Close(); err != nil {
			t.Fatal(err)
		}
		stale = openRecord(t, dir)
		other := a.openRecorded(t, queue, stale)
		a.send(t, queue, "1")
		if got := receive(t, other, 1)[0]; string(got.Message.Body) != "1" {
			t.Errorf("message %s was taken from its receiver", got.Message.Body)
		}
		if came["renewed"].IsRevoked() {
			t.Error("the receiver lost its message")
		}
		done(t, came["0"], came["renewed"])
		for _, r := range []*record.Record{r, stale} {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
