package worker

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// A worker whose READY is not of what LOAD asked for, or whose RESULT is none, is
// killed, and the reason says which; the call that was in flight alone goes with it.
func TestAWorkerThatBreaksTheProtocolIsKilled(t *testing.T) {
	reaper := childproc.New(nil)
	t.Cleanup(reaper.Close)
	for name, test := range map[string]struct {
		ready  string
		result []byte // to call 0, once there is one; nil: there is none
		want   string
	}{
		"too few":              {`[{"name":"f","kind":"sync"}]`, nil, "it was asked for 2 functions and has 1"},
		"another name":         {`[{"name":"f","kind":"sync"},{"name":"h","kind":"sync"}]`, nil, `a READY whose function 1 is "h", where LOAD has "g" there`},
		"another order":        {`[{"name":"g","kind":"sync"},{"name":"f","kind":"sync"}]`, nil, `a READY whose function 0 is "g", where LOAD has "f" there`},
		"no name":              {`[{"kind":"sync"},{"name":"g","kind":"sync"}]`, nil, `a READY whose function 0 is "", where LOAD has "f" there`},
		"another kind":         {`[{"name":"f","kind":"sync"},{"name":"g","kind":"Async"}]`, nil, `a READY with "g" of kind "Async", where there are sync and async`},
		"no kind":              {`[{"name":"f"},{"name":"g","kind":"sync"}]`, nil, `a READY with "f" of kind "", where there are sync and async`},
		"a failure of no JSON": {both, answerOf(0, protocol.Failure, "{"), "a RESULT that is no JSON"},
		"a failure of nothing": {both, answerOf(0, protocol.Failure, ""), "a RESULT that is no JSON"},
		"a reject of no JSON":  {both, answerOf(0, protocol.Reject, "[]"), "a RESULT that is no JSON"},
		"a retry of no JSON":   {both, answerOf(0, protocol.Retry, `{"after":"soon"}`), "a RESULT that is no JSON"},
		"a retry in years":     {both, answerOf(0, protocol.Retry, `{"after":1e8}`), "where 0 to 2592000 seconds are allowed"},
		"a state of no length": {both, answerOf(0, protocol.State, "abc"), "a RESULT with a state, of 3 bytes"},
		"a state cut off":      {both, answerOf(0, protocol.State, "\x09\x00\x00\x00abc"), "a state of 9 bytes in a RESULT of 7"},
		"a block of nobody":    {both, frames(t, protocol.Blocked, `{"function":2}`), "a BLOCKED of function 2, of which there are 2"},
		"a block before time":  {both, frames(t, protocol.Blocked, `{"took_us":-1}`), "a BLOCKED of -1 µs"},
		"a block of no JSON":   {both, frames(t, protocol.Blocked, `[]`), "a BLOCKED that is no JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, side := pretended(t, reaper, []Function{{Name: "f"}, {Name: "g"}})
			write := func(frame []byte) {
				if _, err := side.Write(frame); err != nil {
					t.Error(err)
				}
			}
			write(frames(t, protocol.Welcome, `{"protocol":4,"pid":1,"language":"x","version":"1","capabilities":[]}`))
			write(frames(t, protocol.Ready, `{"functions":`+test.ready+`}`))
			c := NewAwaitedCall(t.Context(), 0, &triggers.Message{ID: "m"})
			if test.result != nil {
				<-w.Loaded
				if !w.Submit(c) {
					t.Fatal("it takes no call")
				}
				write(test.result)
			}
			select {
			case <-w.Gone:
			case <-time.After(time.Minute):
				t.Fatal("it is not killed")
			}
			if w.Cause != process.CauseProtocol || !errors.Is(w.Reason, protocol.ErrProtocol) || !strings.Contains(w.Reason.Error(), test.want) {
				t.Errorf("%s, %v; want %q", w.Cause, w.Reason, test.want)
			}
			if test.result != nil {
				if r := <-c.Replies(); r.Lost == nil || !errors.Is(r.Lost.Err, protocol.ErrProtocol) || !r.Lost.Alone || r.Lost.Again {
					t.Errorf("the call: %+v", r)
				}
			} else if w.Ready != nil {
				t.Error("it is taken for ready")
			}
		})
	}
}

// both is a READY's functions, as they should be.
const both = `[{"name":"f","kind":"sync"},{"name":"g","kind":"async"}]`

// pretended is a worker whose other end the test plays.
func pretended(t *testing.T, reaper *childproc.Reaper, functions []Function) (*Worker, net.Conn) {
	t.Helper()
	dead := ended(t, reaper)
	conn, theirs, err := childproc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	side, err := net.FileConn(theirs)
	if err = errors.Join(err, theirs.Close()); err != nil {
		t.Fatal(err)
	}
	dead.Conn = conn
	w := NewGroup(Config{
		App: "/app", Functions: functions, MaxFrame: protocol.DefaultMax, Log: slog.New(slog.DiscardHandler),
		Settings:    func() Settings { return Settings{Threads: 1, Coroutines: 512} },
		Changed:     func() {},
		RoomChanged: func() {},
	}).NewWorker(dead)
	if err := w.BeginHandshake(false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = side.Close()
		w.Wait()
	})
	return w, side
}
