package worker

import (
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// A worker whose READY does not match LOAD, or whose RESULT is invalid, is killed with that reason;
// the only call in flight fails with it.
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
		"outputs of no length": {both, answerOf(0, protocol.Done|64, "abc"), "messages for outputs without a length"},
		"outputs cut off":      {both, answerOf(0, protocol.Done|64, "\x09\x00\x00\x00abc"), "messages for outputs of 9 bytes, where 3 are left"},
		"a body cut off":       {both, answerOf(0, protocol.Done|64, "\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00x"), "a message for an output of 2 bytes, where 1 are left"},
		"an unknown output":    {both, answerOf(0, protocol.Done|64, "\x0b\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00x"), "a RESULT with a message for output 1; there are 1"},
		"outputs of a failure": {both, answerOf(0, protocol.Failure|64, "{}"), "a RESULT of status 65"},
		"a part of nothing":    {both, partOf(7, 1, head, ""), "a PART of invocation 7, which it does not have"},
		"a part without head":  {both, partOf(0, 0, "", "x"), "or without a head that is"},
		"two heads":            {both, slices.Concat(partOf(0, 1, head, ""), partOf(0, 1, head, "")), "with a head that is not the first"},
		"a head of no JSON":    {both, partOf(0, 1, "{", ""), "a PART whose head is no JSON"},
		"a head cut off":       {both, []byte{9, 0, 0, 0, byte(protocol.Part), 0, 0, 0, 0, 1, 1, 2, 3}, "a PART of 8 bytes whose head is cut off"},
		"a status of 100":      {both, partOf(0, 1, `{"status":100}`, ""), "a PART with the status 100"},
		"half a header":        {both, partOf(0, 1, `{"status":200,"headers":[["a"]]}`, ""), "a PART with a header of 1 texts"},
		"unknown flags":        {both, partOf(0, 4, "", ""), "a PART with the flags 4"},
		"a part after the end": {both, slices.Concat(partOf(0, 3, head, ""), partOf(0, 0, "", "")), "after its last"},
		"a result after parts": {both, slices.Concat(partOf(0, 1, head, ""), answerOf(0, protocol.Done, "x")), "a RESULT with a result of 1 bytes"},
		"a block of nobody":    {both, frames(t, protocol.Blocked, `{"function":2}`), "a BLOCKED of function 2; there are 2"},
		"a block before time":  {both, frames(t, protocol.Blocked, `{"took_us":-1}`), "a BLOCKED of -1 µs"},
		"a block of no JSON":   {both, frames(t, protocol.Blocked, `[]`), "a BLOCKED that is no JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, side := pretended(t, reaper, []Function{{Name: "f", Outputs: []string{"a"}, Reply: true}, {Name: "g"}})
			write := func(frame []byte) {
				if _, err := side.Write(frame); err != nil {
					t.Error(err)
				}
			}
			write(frames(t, protocol.Welcome, `{"protocol":4,"pid":1,"language":"x","version":"1","capabilities":["outputs"]}`))
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
				r := <-c.Replies()
				if r.err != nil { // its response has begun
					r.Lost = &Loss{Err: r.err, Alone: true}
				}
				if r.Lost == nil || !errors.Is(r.Lost.Err, protocol.ErrProtocol) || !r.Lost.Alone || r.Lost.Again {
					t.Errorf("the call: %+v", r)
				}
			} else if w.Ready != nil {
				t.Error("it is taken for ready")
			}
		})
	}
}

// both has the functions of a correct READY.
const both = `[{"name":"f","kind":"sync"},{"name":"g","kind":"async"}]`

// pretended is a worker whose side the test plays.
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

// TestNoMessageWaitsBehindLongCalls checks that messages are queued in a worker only to hide the
// round trip, that a worker with long calls has no more than its threads run, and that large bodies
// do not pile up.
func TestNoMessageWaitsBehindLongCalls(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		average time.Duration
		size    int
		threads int
		want    int
	}{
		{time.Microsecond, 0, 1, maxExtra},
		{time.Microsecond, 128, 1, maxExtra},
		{time.Microsecond, 10 << 10, 1, 102},
		{time.Microsecond, 16 << 20, 1, 4},
		{time.Microsecond, 16 << 20, 2, 8},
		{time.Millisecond, 128, 1, 10},
		{time.Millisecond, 128, 4, 40},
		{12 * time.Millisecond, 128, 1, 1},
		{21 * time.Millisecond, 128, 1, 0},
		{50 * time.Millisecond, 128, 50, 10},
		{100 * time.Millisecond, 128, 512, 0},
		{5 * time.Second, 128, 512, 0},
		{5 * time.Second, 128, 4096, 0},
	} {
		if got := extraFor(test.average, test.size, test.threads); got != test.want {
			t.Errorf("calls of %v with %d bytes in %d threads: %d more are sent, want %d", test.average, test.size, test.threads, got, test.want)
		}
	}
}

// A worker without a capability that a function needs is not used, and the reason names both.
func TestWorkerWithoutANeededCapability(t *testing.T) {
	reaper := childproc.New(nil)
	t.Cleanup(reaper.Close)
	for want, f := range map[string]Function{
		"function f needs session_state, which the x worker does not support (capability session_state)":                    {Name: "f", SessionState: true},
		"function f needs named outputs, which the x worker does not support (capability outputs)":                          {Name: "f", Outputs: []string{"a"}},
		"function f needs the source's own fields, which the x worker does not support (capability origin)":                 {Name: "f", Origin: true},
		"function f needs the programming model of Azure Functions, which the x worker does not support (capability azure)": {Name: "f", Azure: []byte("{}")},
	} {
		w, side := pretended(t, reaper, []Function{f})
		if _, err := side.Write(frames(t, protocol.Welcome, `{"protocol":4,"pid":1,"language":"x","version":"1","capabilities":["log"]}`)); err != nil {
			t.Error(err)
		}
		<-w.Loaded
		if w.Failed == nil || w.Failed.Summary != want {
			t.Errorf("%+v, want %q", w.Failed, want)
		}
	}
}

// The first call sets the average, and so does one that takes much longer than earlier ones.
func TestAverageOfCalls(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ average, took, want time.Duration }{
		{0, 52 * time.Millisecond, 52 * time.Millisecond},
		{time.Millisecond, 9 * time.Millisecond, 2 * time.Millisecond},
		{time.Millisecond, 50 * time.Millisecond, 50 * time.Millisecond},
		{time.Minute, 4 * time.Second, 53 * time.Second},
	} {
		if got := nextAverage(test.average, test.took); got != test.want {
			t.Errorf("after %v, %v: %v, want %v", test.average, test.took, got, test.want)
		}
	}
}
