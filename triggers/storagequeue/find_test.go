package storagequeue

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/triggertest"
)

func TestFind(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		triggertest.RunFind(t, func(t *testing.T) *triggertest.Searchable {
			queue := a.newQueue(t)
			return &triggertest.Searchable{
				Source: a.source(queue), Back: triggers.PlaceReady,
				IDs: func(t testing.TB) (ids []string) {
					r, err := a.reach(queue)
					if err != nil {
						t.Fatal(err)
					}
					seen, err := r.peek(t.Context(), MaxPeek)
					if err != nil {
						t.Fatal(err)
					}
					for _, m := range seen {
						ids = append(ids, deref(m.MessageID))
					}
					return ids
				},
			}
		})
	})
}

// Messages hidden until their retry, and messages after the first page, are not found.
func TestFindWhatIsNotShown(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue := a.newQueue(t)
		tr := a.open(t, queue, nil)
		a.send(t, queue, "again")
		d := receive(t, tr, 1)[0]
		settle(t, d, triggers.Verdict{Kind: triggers.Retry, Delay: time.Hour})
		eventually(t, "it is hidden", func() bool {
			_, err := tr.Find(t.Context(), d.Message.ID)
			return errors.Is(err, triggers.ErrNotFound)
		})
		for n := range MaxPeek {
			a.send(t, queue, fmt.Sprint(n))
		}
		last, err := a.raw(t, queue).EnqueueMessage(t.Context(), "bGFzdA==", nil)
		if err != nil {
			t.Fatal(err)
		}
		id := *last.Messages[0].MessageID
		if found, err := tr.Find(t.Context(), id); !errors.Is(err, triggers.ErrNotFound) {
			t.Errorf("%+v, %v; want ErrNotFound: it is behind %d", found, err, MaxPeek)
		}
		done(t, receive(t, tr, 1)...)
		eventually(t, "it is shown, as the last", func() bool {
			found, err := tr.Find(t.Context(), id)
			return err == nil && found.Place == triggers.PlaceReady && found.Ahead == MaxPeek-1
		})
	})
}

// A missing queue is not reported as a missing message.
func TestFindWithoutAQueue(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	tr := a.open(t, queue, nil)
	if _, err := a.raw(t, queue).Delete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Find(t.Context(), "any"); err == nil || errors.Is(err, triggers.ErrNotFound) || !strings.Contains(err.Error(), queue) {
		t.Errorf("%v; want an error that names the queue", err)
	}
}
