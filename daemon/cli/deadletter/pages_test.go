package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// pagedDead has dead letters with the IDs 1 to n, of messages whose IDs are m1 to m9, repeated.
type pagedDead struct {
	triggers.DeadLetters
	n, at int
}

var errAway = errors.New("it is away")

func (d *pagedDead) Browse(_ context.Context, max int) (out []triggers.DeadLetter, err error) {
	if d.n < 0 {
		return nil, errAway
	}
	for ; d.at < d.n && len(out) < max; d.at++ {
		out = append(out, triggers.DeadLetter{ID: fmt.Sprint(d.at + 1), Message: triggers.Message{ID: fmt.Sprint("m", d.at%9+1)}})
	}
	return out, nil
}

func TestFindOne(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		n             int
		id, want, err string
	}{
		{300, "270", "270", ""},
		{9, "m4", "4", ""},
		{300, "m4", "", "33 dead letters have the message ID m4; name one of them: 4, 13, 22, 31, 40, 49, 58, 67, 76, 85 and 23 more"},
		{300, "301", "", ErrNotFound.Error()},
		{0, "1", "", ErrNotFound.Error()},
		{-1, "1", "", errAway.Error()},
	} {
		got, err := FindOne(t.Context(), &pagedDead{n: test.n}, test.id)
		if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) || err == nil && got.ID != test.want {
			t.Errorf("%s of %d: %s, %v", test.id, test.n, got.ID, err)
		}
	}
}

// A filter selects by the ID of a dead letter, or by the ID of its message.
func TestFilterByEitherID(t *testing.T) {
	t.Parallel()
	f := Filter{ID: []string{"7", "orders:42"}}
	match, err := f.NewMatch("f", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		id, message string
		want        bool
	}{{"7", "x", true}, {"8", "orders:42", true}, {"8", "7", true}, {"42", "orders:4", false}} {
		if got := match(&triggers.DeadLetter{ID: test.id, Message: triggers.Message{ID: test.message}}); got != test.want {
			t.Errorf("%s of %s: %v", test.id, test.message, got)
		}
	}
}
