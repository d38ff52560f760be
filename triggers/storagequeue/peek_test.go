package storagequeue

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/triggertest"
)

func (a *account) peeker(t testing.TB, queue string, log *slog.Logger) triggers.Peeker {
	t.Helper()
	p, err := OpenPeeker(PeekConfig{Account: a.Account, Queue: queue, Encoding: Base64, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPeek(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		triggertest.RunPeek(t, func(t *testing.T) *triggertest.Peekable {
			queue := a.newQueue(t)
			return &triggertest.Peekable{
				Source: a.source(queue), Most: MaxPeek, HidesLeased: true,
				OpenPeeker: func(t testing.TB) triggers.Peeker { return a.peeker(t, queue, testLog(t)) },
			}
		})
	})
}

// A message whose encoding differs from the function's is omitted, and this is reported.
func TestPeekLeavesOutWhatNoFunctionCanHave(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	if _, err := a.raw(t, queue).EnqueueMessage(t.Context(), "no base64!", nil); err != nil {
		t.Fatal(err)
	}
	a.send(t, queue, "good")
	var log bytes.Buffer
	got, err := a.peeker(t, queue, slog.New(slog.NewTextHandler(&log, nil))).Peek(t.Context(), 10)
	if err != nil || len(got) != 1 || string(got[0].Body) != "good" {
		t.Errorf("%v, %v", got, err)
	}
	if !strings.Contains(log.String(), "encoding: text") {
		t.Errorf("the log is %q", log.String())
	}
	if _, err := a.peeker(t, "not-there", testLog(t)).Peek(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "not-there") {
		t.Errorf("a queue that is not there: %v", err)
	}
}
