package storagequeue

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
	"github.com/drover-run/drover/triggers/storagequeue/reasons"
	"github.com/drover-run/drover/triggers/triggertest"
)

// openDead returns the dead letters of a queue; change may be nil.
func (a *account) openDead(t testing.TB, queue string, change func(*DeadLettersConfig)) *deadLetters {
	t.Helper()
	cfg := DeadLettersConfig{Account: a.Account, Queue: queue, PoisonQueue: queue + PoisonSuffix, PoisonFormat: PoisonEnvelope, Encoding: Base64}
	if change != nil {
		change(&cfg)
	}
	d, err := OpenDeadLetters(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d.(*deadLetters)
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		triggertest.RunDeadLetters(t, func(t *testing.T) *triggertest.Graveyard {
			queue := a.newQueue(t)
			return &triggertest.Graveyard{
				Source: &triggertest.Source{
					Open: func(t testing.TB) triggers.Trigger { return a.open(t, queue, nil) },
					Send: func(t testing.TB, ms ...triggers.Message) {
						for _, m := range ms {
							a.send(t, queue, string(m.Body))
						}
					},
					Lease: time.Second, NoAttributes: true, Reorders: true,
				},
				OpenDead: func(t testing.TB) triggers.DeadLetters { return a.openDead(t, queue, nil) },
				Half: func(t testing.TB, dead triggers.DeadLetters, l triggers.DeadLetter) {
					d := dead.(*deadLetters)
					if _, err := d.queue.put(t.Context(), l.Own.(own).text, 0, DefaultTimeToLive); err != nil {
						t.Fatal(err)
					}
					if err := d.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
				},
				Doubtful: true,
				NewIDs:   true,
			}
		})
	})
}

// bury puts dead letters into a queue's poison queue.
func (a *account) buried(t *testing.T, format PoisonFormat, bodies ...string) (queue string, tr *trigger) {
	t.Helper()
	queue = a.newQueue(t)
	tr = a.open(t, queue, func(c *Config) { c.PoisonFormat = format })
	a.send(t, queue, bodies...)
	for range bodies {
		settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Reject, Reason: "no", Function: "f"})
	}
	return queue, tr
}

// A poison queue that Azure Functions wrote has bodies alone.
func TestDeadLettersThatAreBodies(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue, tr := a.buried(t, PoisonBody, "plain", `{"id":"x","queue":"QUEUE","error":"e","rejected":"2026-01-01T00:00:00Z","body":"inner"}`)
		d := a.openDead(t, queue, func(c *DeadLettersConfig) { c.PoisonFormat = PoisonBody })
		all, err := d.Browse(t.Context(), 32)
		if err != nil || len(all) != 2 {
			t.Fatalf("%d, %v", len(all), err)
		}
		for _, l := range all {
			if l.Reason != "" || l.Message.Attempt != 0 || l.Died.IsZero() || l.Message.Subject != queue {
				t.Errorf("%+v", l)
			}
			if err := d.Replay(t.Context(), l, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for range 2 {
			again := receive(t, tr, 1)[0]
			if again.Message.Attempt != 1 {
				t.Errorf("attempt %d", again.Message.Attempt)
			}
			got = append(got, string(again.Message.Body)[:1])
			done(t, again)
		}
		slices.Sort(got)
		if strings.Join(got, "") != "p{" {
			t.Errorf("%q", got)
		}
	})
}

// In Azure's format a dead letter has another ID than its message had. The message's, which the log has, is
// kept beside the reason.
func TestTheIDOfAMessageIsKept(t *testing.T) {
	t.Parallel()
	a, dir := emulated(t), t.TempDir()
	queue := a.newQueue(t)
	tr := a.open(t, queue, func(c *Config) { c.PoisonFormat, c.Reasons = PoisonBody, reasons.NewStore(dir) })
	a.send(t, queue, "plain")
	delivery := receive(t, tr, 1)[0]
	id := delivery.Message.ID
	settle(t, delivery, triggers.Verdict{Kind: triggers.Reject, Reason: "no", Function: "f"})
	d := a.openDead(t, queue, func(c *DeadLettersConfig) {
		c.PoisonFormat, c.Reasons = PoisonBody, reasons.ReadAll([]string{dir}, queue+PoisonSuffix)
	})
	all, err := d.Browse(t.Context(), 32)
	if err != nil || len(all) != 1 || all[0].Message.ID != id || all[0].ID == id || all[0].Reason != "no" {
		t.Errorf("%+v, %v; want the message %s", all, err, id)
	}
}

// The page that the service can peek is not changed; later messages are hidden until the end.
func TestALookAtAPoisonQueue(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	var bodies []string
	for i := range 40 {
		bodies = append(bodies, fmt.Sprint(i))
	}
	queue, _ := a.buried(t, PoisonEnvelope, bodies...)
	poison := queue + PoisonSuffix
	d := a.openDead(t, queue, nil)
	if page, err := d.Browse(t.Context(), 32); err != nil || len(page) != 32 || len(a.texts(t, poison)) != 32 {
		t.Errorf("%d of a page, %v; %d are seen by others", len(page), err, len(a.texts(t, poison)))
	}
	if page, err := d.Browse(t.Context(), 32); err != nil || len(page) != 8 || len(a.texts(t, poison)) != 0 {
		t.Errorf("%d of a page, %v; %d are seen by others", len(page), err, len(a.texts(t, poison)))
	}
	if page, err := d.Browse(t.Context(), 32); err != nil || len(page) != 0 {
		t.Errorf("%d of a page, %v", len(page), err)
	}
	takeBack := a.Inject(emulator.Fault{Operation: emulator.Update, Status: http.StatusForbidden, Code: "AuthorizationPermissionMismatch"})
	if err := d.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "40 dead letters of "+poison+" could not be released, and are hidden for 2m0s") || !strings.Contains(err.Error(), "Storage Queue Data Contributor") {
		t.Errorf("%v", err)
	}
	takeBack()
}

// A replay that cannot put a message back keeps its dead letter, and a dead letter
// that cannot be deleted is reported.
func TestReplaysThatFail(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue, tr := a.buried(t, PoisonEnvelope, "1")
	d := a.openDead(t, queue, nil)
	all, err := d.Browse(t.Context(), 32)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d, %v", len(all), err)
	}
	takeBack := a.Inject(emulator.Fault{Operation: emulator.Put, Status: http.StatusForbidden, Code: "AuthorizationPermissionMismatch"})
	if err := d.Replay(t.Context(), all[0], time.Time{}); err == nil || !strings.Contains(err.Error(), "Storage Queue Data Message Sender") {
		t.Errorf("%v", err)
	}
	takeBack()
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.Len(queue) != 0 || len(a.texts(t, queue+PoisonSuffix)) != 1 {
		t.Error("the dead letter is gone, or hidden")
	}
	d = a.openDead(t, queue, nil)
	if all, err = d.Browse(t.Context(), 32); err != nil || len(all) != 1 {
		t.Fatalf("%d, %v", len(all), err)
	}
	a.Inject(emulator.Fault{Operation: emulator.Delete, Times: 4, Status: http.StatusInternalServerError, Code: "InternalError"})
	if err := d.Replay(t.Context(), all[0], time.Time{}); err == nil {
		t.Error("it could not be deleted, and no error")
	}
	done(t, receive(t, tr, 1)...)
}
