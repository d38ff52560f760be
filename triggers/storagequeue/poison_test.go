package storagequeue

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
)

// If the poison queue cannot be created, the message stays leased: nothing is lost.
func TestThePoisonQueueCannotBeMade(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "bad")
	tr := a.open(t, queue, nil)
	d := receive(t, tr, 1)[0]
	takeBack := a.Inject(emulator.Fault{Operation: emulator.CreateQueue, Status: http.StatusForbidden, Code: "AuthorizationPermissionMismatch"})
	reject := triggers.Verdict{Kind: triggers.Reject, Reason: "no good", Function: "f"}
	err := d.Settle(t.Context(), reject)
	if err == nil || !strings.Contains(err.Error(), "the poison queue: making "+queue+"-poison") || !strings.Contains(err.Error(), "Storage Queue Data Contributor") {
		t.Errorf("%v", err)
	}
	if a.Len(queue) != 1 {
		t.Fatal("the message is gone")
	}
	if all := tr.Troubles(); len(all) != 1 || all[0].Kind != triggers.TroubleDeadLetters || !strings.Contains(all[0].Text, "Storage Queue Data Contributor") {
		t.Errorf("the trouble is %+v", all)
	}
	takeBack()
	// It can be made, and the message can't be deleted at first: there is one copy.
	a.Inject(emulator.Fault{Operation: emulator.Delete, Times: 4, Status: http.StatusInternalServerError, Code: "InternalError"})
	if err := d.Settle(t.Context(), reject); err == nil {
		t.Error("it could not be deleted, and no error")
	}
	settle(t, d, reject)
	if dead := a.dead(t, queue); len(dead) != 1 || string(dead[0].Body) != "bad" || a.Len(queue) != 0 {
		t.Errorf("dead letters %+v, and %d messages left", dead, a.Len(queue))
	}
	if all := tr.Troubles(); len(all) != 0 {
		t.Errorf("it was moved, and there still is %+v", all)
	}
}

// Failures that cannot be counted, for example because the disk is full, are reported as a problem
// until they can be.
func TestFailuresThatCannotBeCounted(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "1", "2")
	broken, err := OpenLedger(filepath.Join(t.TempDir(), "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	tr := a.open(t, queue, nil)
	works := tr.cfg.Ledger
	got := receive(t, tr, 2)
	tr.cfg.Ledger = broken
	settle(t, got[0], triggers.Verdict{Kind: triggers.Retry})
	if all := tr.Troubles(); len(all) != 1 || all[0].Kind != triggers.TroubleAttempts {
		t.Errorf("the trouble is %+v", all)
	}
	tr.cfg.Ledger = works
	settle(t, got[1], triggers.Verdict{Kind: triggers.Retry})
	if all := tr.Troubles(); len(all) != 0 {
		t.Errorf("it was counted, and there still is %+v", all)
	}
}

// If a message does not fit into an envelope, the traceback is shortened first.
func TestLargeDeadLetters(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	for _, test := range []struct {
		body, detail int
		want         string
	}{
		{1 << 10, 1 << 10, "all"},
		{20 << 10, 64 << 10, "the end of the traceback"},
		{48 << 10, 1 << 10, "the body alone"},
	} {
		tr := a.open(t, queue, nil)
		body := strings.Repeat("b", test.body)
		a.send(t, queue, body)
		d := receive(t, tr, 1)[0]
		settle(t, d, triggers.Verdict{Kind: triggers.Reject, Reason: "no good", Detail: strings.Repeat("d", test.detail-5) + "\nlast", Function: "f"})
		if test.want == "the body alone" {
			if texts := a.texts(t, queue+PoisonSuffix); len(texts) != 1 || len(texts[0]) != 64<<10 {
				t.Errorf("%s: %d messages", test.want, len(texts))
			}
			continue
		}
		dead := a.dead(t, queue)
		if len(dead) != 1 || string(dead[0].Body) != body || dead[0].Reason != "no good" || !strings.HasSuffix(dead[0].Detail, "\nlast") {
			t.Fatalf("%s: %d dead letters", test.want, len(dead))
		}
		if whole := len(dead[0].Detail) == test.detail; whole != (test.want == "all") {
			t.Errorf("%s: the traceback has %d of %d bytes", test.want, len(dead[0].Detail), test.detail)
		}
		if _, err := a.raw(t, queue+PoisonSuffix).ClearMessages(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// Dead letters do not expire, unlike messages, which expire after a week.
func TestDeadLettersStay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue := a.newQueue(t)
		a.send(t, queue, "bad")
		tr := a.open(t, queue, func(c *Config) { c.PoisonFormat = PoisonBody })
		settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Reject, Reason: "no good"})
		got, err := a.raw(t, queue+PoisonSuffix).DequeueMessage(t.Context(), nil)
		if err != nil || len(got.Messages) != 1 {
			t.Fatalf("%v, %v", got.Messages, err)
		}
		if m := got.Messages[0]; *m.MessageText != "YmFk" || m.ExpirationTime.Year() < 9999 {
			t.Errorf("%s, until %v", *m.MessageText, m.ExpirationTime)
		}
	})
}

// A message that crashes its daemon has no counted failures.
func TestTooManyDeliveries(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.send(t, queue, "deadly")
	for range 3 {
		tr := a.open(t, queue, func(c *Config) { c.MaxDequeueCount, c.MaxAttempts = 3, 2 })
		receive(t, tr, 1)
		tr.crash()
	}
	tr := a.open(t, queue, func(c *Config) { c.MaxDequeueCount, c.MaxAttempts = 3, 2 })
	stop := background(t, tr, func(*triggers.Delivery) triggers.Verdict {
		t.Error("it ran once more")
		return triggers.Verdict{Kind: triggers.Release}
	})
	eventually(t, "it is in the poison queue", func() bool { return len(a.dead(t, queue)) == 1 })
	stop()
	if d := a.dead(t, queue)[0]; string(d.Body) != "deadly" || !strings.Contains(d.Reason, "it was delivered 4 times, more than max_dequeue_count (3)") {
		t.Errorf("%+v", d)
	}
}
