package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// receiver is the context of a call whose response the test receives in parts.
type receiver struct {
	context.Context
	properties chan triggers.Properties
	parts      chan []byte // each Write waits until its part is received
	closed     chan struct{}
	gone       chan struct{} // closed by the test: a Write fails
}

func newReceiver(ctx context.Context) *receiver {
	return &receiver{ctx, make(chan triggers.Properties, 1), make(chan []byte), make(chan struct{}), make(chan struct{})}
}

func (r *receiver) ReplyStream(_ context.Context, properties triggers.Properties) (io.WriteCloser, error) {
	r.properties <- properties
	return r, nil
}

func (r *receiver) Write(part []byte) (int, error) {
	select {
	case r.parts <- bytes.Clone(part):
		return len(part), nil
	case <-r.gone:
		return 0, errors.New("the client is gone")
	}
}

func (r *receiver) Close() error {
	close(r.closed)
	return nil
}

// partOf is a PART.
func partOf(id byte, flags byte, head, body string) []byte {
	payload := []byte{id, 0, 0, 0, flags}
	if flags&1 != 0 {
		payload = binary.LittleEndian.AppendUint32(payload, uint32(len(head)))
		payload = append(payload, head...)
	}
	payload = append(payload, body...)
	out := binary.LittleEndian.AppendUint32(nil, uint32(1+len(payload)))
	return append(append(out, byte(protocol.Part)), payload...)
}

// streaming returns a ready worker that has taken a call of a function with a response in parts.
// sent receives the frames that the daemon sends after LOAD.
func streaming(t *testing.T, c *Call) (w *Worker, side net.Conn, sent <-chan string) {
	t.Helper()
	reaper := childproc.New(nil)
	t.Cleanup(reaper.Close)
	w, side = pretended(t, reaper, []Function{{Name: "f", Reply: true}})
	out := make(chan string, 100)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(out)
		p := protocol.NewParser(protocol.DefaultMax)
		for {
			n, err := side.Read(p.ReadBuffer())
			p.AdvanceRead(n)
			for {
				kind, payload, _ := p.NextFrame()
				if kind == 0 {
					break
				}
				switch kind {
				case protocol.Credit:
					out <- fmt.Sprintf("CREDIT %d %d", binary.LittleEndian.Uint32(payload), binary.LittleEndian.Uint32(payload[4:]))
				case protocol.Cancel:
					out <- fmt.Sprintf("CANCEL %d", binary.LittleEndian.Uint32(payload))
				}
			}
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(reading.Wait)
	t.Cleanup(func() { _ = side.Close() })
	send(t, side, frames(t, protocol.Welcome, `{"protocol":4,"pid":1,"language":"x","version":"1","capabilities":["cancel","stream"]}`),
		frames(t, protocol.Ready, `{"functions":[{"name":"f","kind":"sync"}]}`))
	<-w.Loaded
	if !w.Submit(c) {
		t.Fatal("it takes no call")
	}
	return w, side, out
}

func send(t *testing.T, side net.Conn, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		if _, err := side.Write(f); err != nil {
			t.Fatal(err)
		}
	}
}

const head = `{"status":201,"headers":[["content-type","text/x"],["Set-Cookie","a"],["Set-Cookie","b"]]}`

func TestAResponseInParts(t *testing.T) {
	to := newReceiver(t.Context())
	c := NewAwaitedCall(to, 0, &triggers.Message{ID: "m"})
	_, side, _ := streaming(t, c)
	send(t, side, partOf(0, 1, head, "one"))
	if got := <-to.properties; got[triggers.HTTPStatus] != "201" || got[triggers.ContentType] != "text/x" || got[triggers.HTTPHeaders] != `[["Set-Cookie","a"],["Set-Cookie","b"]]` {
		t.Errorf("%v", got)
	}
	if got := <-to.parts; string(got) != "one" {
		t.Errorf("%q", got)
	}
	send(t, side, partOf(0, 2, "", "two"))
	if got := <-to.parts; string(got) != "two" {
		t.Errorf("%q", got)
	}
	<-to.closed // the body is complete, although the call continues
	send(t, side, answerOf(0, protocol.Done, ""))
	r := <-c.Replies()
	if output, err := r.HandlerResult(to); len(output) > 0 || err != nil {
		t.Errorf("%q, %v", output, err)
	}
}

// A slow client loses nothing, the worker gets credit only for what the client has read, and the
// result waits for the client.
func TestASlowClient(t *testing.T) {
	to := newReceiver(t.Context())
	c := NewAwaitedCall(to, 0, &triggers.Message{ID: "m"})
	_, side, sent := streaming(t, c)
	piece := strings.Repeat("x", 1<<15)
	send(t, side, partOf(0, 1, head, piece))
	for range protocol.InitialCredit/len(piece) - 1 {
		send(t, side, partOf(0, 0, "", piece))
	}
	got, granted := 0, 0
	for got < protocol.InitialCredit/2 {
		got += len(<-to.parts)
	}
	for granted < protocol.InitialCredit/4 { // the written bytes, except for less than a quarter
		var n int
		if _, err := fmt.Sscanf(<-sent, "CREDIT 0 %d", &n); err != nil {
			t.Fatal(err)
		}
		granted += n
	}
	if granted > got {
		t.Errorf("credit for %d bytes, but the client has %d", granted, got)
	}
	send(t, side, answerOf(0, protocol.Done, ""))
	select {
	case r := <-c.Replies():
		t.Fatalf("a result before the client has the response: %+v", r)
	case part := <-to.parts:
		got += len(part)
	}
	for got < protocol.InitialCredit {
		got += len(<-to.parts)
	}
	if r := <-c.Replies(); r.Lost != nil || r.err != nil || r.Status != protocol.Done {
		t.Errorf("%+v", r)
	}
}

// A worker that sends more than its credit is killed: the unread data of a slow client is bounded.
func TestAWorkerExceedsItsCredit(t *testing.T) {
	to := newReceiver(t.Context())
	c := NewAwaitedCall(to, 0, &triggers.Message{ID: "m"})
	w, side, _ := streaming(t, c)
	send(t, side, partOf(0, 1, head, strings.Repeat("x", 200_000)), partOf(0, 0, "", strings.Repeat("x", 62_145)))
	<-w.Gone
	if want := "a PART of invocation 0 of 62145 bytes, with credit for 62144"; !errors.Is(w.Reason, protocol.ErrProtocol) || !strings.Contains(w.Reason.Error(), want) {
		t.Errorf("%v, want %q", w.Reason, want)
	}
	close(to.gone)
	if r := <-c.Replies(); r.Lost != nil || !errors.Is(r.err, protocol.ErrProtocol) {
		t.Errorf("%+v", r)
	}
}

// A disconnected client cancels the call. The rest of the response is dropped, with credit, so that
// a worker that ignores the cancellation can still end the call.
func TestAClientThatIsGone(t *testing.T) {
	to := newReceiver(t.Context())
	c := NewAwaitedCall(to, 0, &triggers.Message{ID: "m"})
	_, side, sent := streaming(t, c)
	close(to.gone)
	send(t, side, partOf(0, 1, head, "one"))
	if line := <-sent; line != "CANCEL 0" {
		t.Errorf("%q", line)
	}
	if r := <-c.Replies(); !r.Cancelled {
		t.Errorf("%+v", r)
	}
	send(t, side, partOf(0, 0, "", strings.Repeat("x", 200_000)))
	if line := <-sent; !strings.HasPrefix(line, "CREDIT 0 ") {
		t.Errorf("%q", line)
	}
	send(t, side, answerOf(0, protocol.Done, ""))
	r := <-c.Replies()
	if _, err := r.HandlerResult(to); !errors.Is(err, handlers.ErrNotTried) || !strings.Contains(err.Error(), "the client is gone") {
		t.Errorf("%v", err)
	}
}

// A call whose response has begun does not run again when its worker dies.
func TestAWorkerDiesInTheMiddleOfAResponse(t *testing.T) {
	to := newReceiver(t.Context())
	c := NewAwaitedCall(to, 0, &triggers.Message{ID: "m"})
	_, side, _ := streaming(t, c)
	send(t, side, partOf(0, 1, head, "one"))
	<-to.parts
	_ = side.Close()
	r := <-c.Replies()
	if _, err := r.HandlerResult(to); r.Lost != nil || err == nil || errors.Is(err, handlers.ErrNotTried) {
		t.Errorf("%+v, %v", r, err)
	}
	select {
	case <-to.closed:
		t.Error("the response looks complete")
	default:
	}
}

// If the result is needed as a whole, its parts are collected.
func TestPartsAreCollected(t *testing.T) {
	c := NewAwaitedCall(t.Context(), 0, &triggers.Message{ID: "m"})
	_, side, _ := streaming(t, c)
	send(t, side, partOf(0, 1, head, "one"), partOf(0, 2, "", "two"), answerOf(0, protocol.Done, ""))
	r := <-c.Replies()
	if output, err := r.HandlerResult(t.Context()); string(output) != "onetwo" || err != nil || r.properties[triggers.HTTPStatus] != "201" {
		t.Errorf("%q, %v, %v", output, err, r.properties)
	}
}
