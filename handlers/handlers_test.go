package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFuncsFail(t *testing.T) {
	cause := errors.New("cause")
	panics := handlers.Func(func(context.Context, *triggers.Message) ([]byte, error) { panic(cause) })
	_, err := panics.Handle(t.Context(), &triggers.Message{})
	var failure *handlers.Failure
	if !errors.As(err, &failure) || failure.Summary != "panic: cause" || !strings.Contains(failure.Detail, "handlers_test.go") {
		t.Errorf("%v", err)
	}
	if err := panics.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestErrorKinds(t *testing.T) {
	cause := errors.New("cause")
	wrapped := func(err error) error { return fmt.Errorf("wrapped: %w", err) }
	if !handlers.Rejected(wrapped(handlers.Reject(cause))) || handlers.Rejected(cause) {
		t.Error("Rejected is wrong")
	}
	if d, ok := handlers.RetryDelay(wrapped(handlers.RetryAfter(time.Second, cause))); d != time.Second || !ok {
		t.Errorf("RetryDelay is %v, %v", d, ok)
	}
	if d, ok := handlers.RetryDelay(handlers.RetryAfter(-time.Second, cause)); d != 0 || !ok {
		t.Errorf("a negative delay is %v, %v", d, ok)
	}
	if _, ok := handlers.RetryDelay(cause); ok {
		t.Error("a plain error asks for a delay")
	}
	for _, err := range []error{handlers.Reject(cause), handlers.RetryAfter(0, cause)} {
		if !errors.Is(err, cause) || err.Error() != "cause" {
			t.Errorf("%v hides its cause", err)
		}
	}
	if got := (&handlers.LoadError{Function: "f", Summary: "no"}).Error(); got != "function f does not load: no" {
		t.Error(got)
	}
}

func offer(t *testing.T, h *handlers.Share) int {
	t.Helper()
	n, err := h.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSlotsAreOfferedTakenAndFreed(t *testing.T) {
	s := handlers.NewSlots(5)
	wide, narrow := s.Share(0), s.Share(2)
	if offer(t, wide) != 5 || offer(t, narrow) != 2 {
		t.Error("an offer is the room, within the share's limit")
	}
	if n := narrow.Take(4); n != 2 {
		t.Errorf("it took %d of its 2", n)
	}
	if n := wide.Take(9); n != 3 || wide.Used() != 3 {
		t.Errorf("it took %d of the 3 that are left", n)
	}
	if n := wide.Take(1); n != 0 {
		t.Errorf("it took %d where none is left", n)
	}
	narrow.Free(1)
	if offer(t, wide) != 1 {
		t.Error("what one frees the other is offered")
	}
}

func TestAnOfferWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := handlers.NewSlots(0)
		h := s.Share(0)
		got := make(chan int, 1)
		go func() { got <- offer(t, h) }()
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("it was offered room where there is none")
		}
		s.Resize(3)
		if n := <-got; n != 3 {
			t.Errorf("offered %d of 3", n)
		}
		h.Take(3)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { _, err := h.Offer(ctx); ended <- err }()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

func TestThoseWhoWaitForMessagesAreCalledBack(t *testing.T) {
	s := handlers.NewSlots(2)
	idle, busy := s.Share(0), s.Share(0)
	called := 0
	idle.Park(func() { called++ })
	busy.Take(1)
	if called != 0 {
		t.Error("called back though there is room")
	}
	busy.Take(1)
	if called != 1 {
		t.Errorf("called back %d times when the last slot went", called)
	}
	idle.Unpark()
	idle.Park(func() { called++ }) // the room went between Offer and Park
	if called != 2 {
		t.Errorf("called back %d times; want at once", called)
	}
	busy.Free(2)
	idle.Park(func() { called++ })
	idle.Unpark()
	busy.Take(2)
	if called != 2 {
		t.Error("called back after Unpark")
	}
	s.Resize(1)
	busy.Free(1)
	if n := busy.Take(1); n != 0 {
		t.Errorf("took %d of a room that shrank", n)
	}
}

func TestClaimsAreServedInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := handlers.NewSlots(1)
		h, limited := s.Share(0), s.Share(1)
		h.Take(1)
		var order []string
		claim := func(name string, share *handlers.Share) {
			go func() {
				if share.Claim(t.Context()) == nil {
					order = append(order, name)
				}
			}()
			synctest.Wait()
		}
		claim("first", h)
		claim("second", limited)
		claim("third", limited)
		ctx, cancel := context.WithCancel(t.Context())
		gave := make(chan error, 1)
		go func() { gave <- h.Claim(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-gave; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		h.Free(1)
		synctest.Wait()
		h.Free(1)
		synctest.Wait()
		if fmt.Sprint(order) != "[first second]" {
			t.Errorf("served: %v", order)
		}
		s.Resize(5) // the third still waits for its own limit
		synctest.Wait()
		if n := h.Take(9); n != 3 {
			t.Errorf("took %d; one slot is in use, one waited for", n)
		}
		limited.Free(1)
		synctest.Wait()
		if fmt.Sprint(order) != "[first second third]" {
			t.Errorf("served: %v", order)
		}
	})
}

// Pausing a share ends its Receive, and it is offered nothing until Resume. Its messages in flight,
// and the other functions of the pool, continue.
func TestAPausedShare(t *testing.T) {
	slots := handlers.NewSlots(2)
	paused, other := slots.Share(0), slots.Share(0)
	revoked := make(chan struct{})
	paused.Park(func() { close(revoked) })
	paused.Pause()
	<-revoked
	if n := paused.Take(2); n != 0 {
		t.Errorf("a paused share took %d", n)
	}
	if err := paused.Claim(t.Context()); err != nil { // for one that it had received
		t.Error(err)
	}
	paused.Free(1)
	if n, err := other.Offer(t.Context()); n != 2 || err != nil {
		t.Errorf("the other function is offered %d, %v", n, err)
	}
	offered := make(chan int)
	go func() {
		n, _ := paused.Offer(t.Context())
		offered <- n
	}()
	paused.Resume()
	if n := <-offered; n != 2 {
		t.Errorf("after the pause %d are offered", n)
	}
}

// A share that moves to other slots keeps its slots in use and its waiters: those with a message,
// for an offer, or for messages.
func TestAShareIsMoved(t *testing.T) {
	from, to := handlers.NewSlots(2), handlers.NewSlots(1)
	moved, stays := from.Share(0), from.Share(0)
	if n := moved.Take(2); n != 2 {
		t.Fatalf("it took %d", n)
	}
	claimed := make(chan error, 1)
	offered := make(chan int, 1)
	go func() { claimed <- moved.Claim(t.Context()) }()
	go func() {
		n, _ := stays.Offer(t.Context())
		offered <- n
	}()
	for from.Share(0).Use().Claims == 0 { // until it waits
		runtime.Gosched()
	}
	moved.Move(to)
	if n := <-offered; n != 2 {
		t.Errorf("%d were offered to the one that stayed, of 2", n)
	}
	if u := moved.Use(); u.Used != 2 || u.All != 2 || u.Capacity != 1 || u.Claims != 1 {
		t.Errorf("after the move: %+v", u)
	}
	moved.Free(2) // now there is room for the claim
	if err := <-claimed; err != nil {
		t.Error(err)
	}
	if u := moved.Use(); u.Used != 1 || u.Claims != 0 {
		t.Errorf("with the claim: %+v", u)
	}
	if u := stays.Use(); u.All != 0 || u.Capacity != 2 {
		t.Errorf("where it was: %+v", u)
	}
	moved.Free(1)

	called := make(chan struct{})
	moved.Park(func() { close(called) })
	moved.Move(from)
	<-called
	moved.Unpark()
	moved.Move(from) // again, to where it is
	if n := moved.Take(3); n != 2 {
		t.Errorf("it took %d of 2", n)
	}
	short, cancel := context.WithCancel(t.Context())
	go func() { claimed <- moved.Claim(short) }()
	for moved.Use().Claims == 0 {
		runtime.Gosched()
	}
	moved.Move(to)
	cancel()
	if err := <-claimed; !errors.Is(err, context.Canceled) || to.Share(0).Use().Claims != 0 {
		t.Errorf("a claim that was moved and given up: %v, %d are left", err, to.Share(0).Use().Claims)
	}
}

// sending is the context of a call, and records messages to named outputs.
type sending struct {
	context.Context
	sent []string
}

func (s *sending) Send(output string, body []byte, properties triggers.Properties) error {
	if output == "none" {
		return errors.New("there is no such output")
	}
	s.sent = append(s.sent, fmt.Sprint(output, " ", string(body), " ", properties["subject"]))
	return nil
}

func (s *sending) Value(key any) any {
	if key == handlers.DescribedKey {
		return s
	}
	return s.Context.Value(key)
}

// Send reaches the context of the call from contexts derived from it.
func TestSend(t *testing.T) {
	s := &sending{Context: t.Context()}
	derived, cancel := context.WithCancel(s)
	defer cancel()
	for _, ctx := range []context.Context{s, derived} {
		if err := handlers.Send(ctx, "a", []byte("x"), triggers.Properties{"subject": "y"}); err != nil {
			t.Error(err)
		}
		if err := handlers.Send(ctx, "none", nil, nil); err == nil {
			t.Error("it sends to an unknown output")
		}
	}
	if fmt.Sprint(s.sent) != "[a x y a x y]" {
		t.Errorf("sent: %q", s.sent)
	}
	if err := handlers.Send(t.Context(), "a", nil, nil); err == nil || !strings.Contains(err.Error(), "not the context of a function's call") {
		t.Errorf("with another context: %v", err)
	}
}
