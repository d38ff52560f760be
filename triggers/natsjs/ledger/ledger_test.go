package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

func TestEntries(t *testing.T) {
	m := Message{Enqueued: time.Unix(100, 5), Created: time.Unix(50, 7)}
	later, ofAnother := m, m
	later.Enqueued, ofAnother.Created = m.Enqueued.Add(1), m.Created.Add(1)
	for entry, want := range map[string]int{
		string(entryOf(3, m)):                                 3,
		string(entryOf(3, later)):                             0,
		string(entryOf(3, ofAnother)):                         0,
		"4 " + strconv.FormatInt(m.Enqueued.UnixNano(), 10):   4, // of an older version
		"4 " + strconv.FormatInt(m.Enqueued.UnixNano()+1, 10): 0,
		"": 0, "nonsense": 0,
	} {
		if got := failuresIn([]byte(entry), m); got != want {
			t.Errorf("%q: %d, want %d", entry, got, want)
		}
	}
}

// The log and the reported problem show when the attempts bucket does not answer, and when it
// answers again.
func TestABucketOfAttemptsWithoutALeader(t *testing.T) {
	var log bytes.Buffer
	var troubles triggers.Troubles
	l := New(nil, "ORDERS", "billing", &troubles, slog.New(slog.NewTextHandler(&log, nil)))
	l.recordFailing(fmt.Errorf("writing: %w", context.DeadlineExceeded))
	l.recordFailing(errors.New("again"))
	if all := troubles.All(); len(all) != 1 || all[0].Kind != triggers.TroubleAttempts {
		t.Errorf("%v", all)
	}
	if got := strings.Count(log.String(), "failures cannot be counted"); got != 1 || !strings.Contains(log.String(), "no leader") {
		t.Errorf("said %d times:\n%s", got, log.String())
	}
	l.recordWorking()
	if all := troubles.All(); len(all) != 0 || !strings.Contains(log.String(), "failures are counted again") {
		t.Errorf("%v\n%s", all, log.String())
	}
}
