package lease

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/drover-run/drover/triggers"
)

var errClosed = errors.New("closed")

// messages returns leased messages with the IDs from to to-1, of ten bytes each.
func messages(from, to int) (out []*Item[*leased]) {
	for n := from; n < to; n++ {
		l := &leased{message: triggers.Message{ID: strconv.Itoa(n), Body: make([]byte, 10)}}
		l.Init(l, &l.message, l)
		out = append(out, &l.Item)
	}
	return out
}

func ids(ds []*triggers.Delivery) (out []string) {
	for _, d := range ds {
		out = append(out, d.Message.ID)
	}
	return out
}

func newBuffer(t *testing.T) (*Buffer[*leased], *triggers.Account) {
	account := triggers.NewBudget(1 << 20).Open()
	t.Cleanup(account.Close)
	b := NewBuffer[*leased](new(sync.Mutex))
	b.Account, b.Closed, b.Request = account, errClosed, func() {}
	return b, account
}

func TestBufferKeepsOrder(t *testing.T) {
	b, account := newBuffer(t)
	next := 0
	var got []string
	for round := range 50 { // more than one turn of its array
		b.Add(messages(next, next+round%7)...)
		next += round % 7
		got = append(got, ids(b.Take(round%5))...)
		if want := int64(10 * b.Len()); account.Used() != want {
			t.Fatalf("the account has %d bytes, want %d", account.Used(), want)
		}
	}
	got = append(got, ids(b.Drain(next))...)
	for n := range next {
		if n >= len(got) || got[n] != strconv.Itoa(n) {
			t.Fatalf("%v is not in order, at %d of %d", got, n, next)
		}
	}
	if b.Len() != 0 || account.Used() != 0 || len(got) != next {
		t.Errorf("%d are left, with %d bytes; got %d of %d", b.Len(), account.Used(), len(got), next)
	}
}

func TestBufferRemoves(t *testing.T) {
	b, account := newBuffer(t)
	items := messages(0, 4)
	b.Add(items...)
	b.Take(1)
	if !b.Remove(items[2]) || b.Remove(items[2]) || b.Remove(items[0]) {
		t.Error("it has removed one twice, or one that it did not have")
	}
	b.Close()
	if got := b.Take(5); got != nil {
		t.Errorf("after Close it returns %q", ids(got))
	}
	rest := b.Rest()
	if !slices.Equal(rest, []*leased{items[1].owner, items[3].owner}) || b.Len() != 0 || account.Used() != 0 {
		t.Errorf("%d are left, and then %d with %d bytes", len(rest), b.Len(), account.Used())
	}
}

// Receive waits until there are messages, an error, or the end of its context.
func TestBufferReceive(t *testing.T) {
	broken := errors.New("the source is broken")
	for name, test := range map[string]struct {
		then func(b *Buffer[*leased], cancel context.CancelFunc)
		ids  []string
		err  error
	}{
		"messages":                {func(b *Buffer[*leased], _ context.CancelFunc) { b.Add(messages(0, 3)...) }, []string{"0", "1"}, nil},
		"an error":                {func(b *Buffer[*leased], _ context.CancelFunc) { b.Fail(broken) }, nil, broken},
		"messages and an error":   {func(b *Buffer[*leased], _ context.CancelFunc) { b.Fail(broken); b.Add(messages(0, 1)...) }, []string{"0"}, nil},
		"the end of its context":  {func(_ *Buffer[*leased], cancel context.CancelFunc) { cancel() }, nil, context.Canceled},
		"the end of the source":   {func(b *Buffer[*leased], _ context.CancelFunc) { b.Close() }, nil, errClosed},
		"messages, but it closed": {func(b *Buffer[*leased], _ context.CancelFunc) { b.Add(messages(0, 1)...); b.Close() }, nil, errClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _ := newBuffer(t)
				requested := 0
				b.Request = func() { requested = b.Waiting() }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var got []*triggers.Delivery
				var err error
				var receiving sync.WaitGroup
				receiving.Go(func() {
					b.L.Lock()
					defer b.L.Unlock()
					got, err = b.Receive(ctx, 2)
				})
				synctest.Wait()
				b.L.Lock()
				if requested != 2 {
					t.Errorf("%d messages are requested, want 2", requested)
				}
				test.then(b, cancel)
				b.L.Unlock()
				receiving.Wait()
				if !slices.Equal(ids(got), test.ids) || !errors.Is(err, test.err) || b.Waiting() != 0 {
					t.Errorf("it returned %q, %v, and still requests %d; want %q, %v", ids(got), err, b.Waiting(), test.ids, test.err)
				}
			})
		})
	}
}
