package driver

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

// Frame is a frame to send.
type Frame struct {
	Text  string   // its name in the transcript
	Bytes []byte   // including its length and type
	Opens []uint32 // the IDs of the calls that it starts
}

// JSONFrame returns a frame with a JSON payload. It panics if the value cannot be encoded.
func JSONFrame(kind protocol.Kind, value any) Frame {
	out, err := protocol.AppendJSON(nil, kind, value)
	if err != nil {
		panic(err) // the value is the suite's own
	}
	return Frame{Text: fmt.Sprintf("%v %s", kind, Excerpt(out[5:])), Bytes: out}
}

// RawFrame returns a frame of any type and payload.
func RawFrame(kind protocol.Kind, payload []byte) Frame {
	out := binary.LittleEndian.AppendUint32(nil, uint32(1+len(payload)))
	return Frame{Text: fmt.Sprintf("%v of %d bytes", kind, 1+len(payload)), Bytes: append(append(out, byte(kind)), payload...)}
}

// Excerpt returns the first 100 bytes of a payload, as text for messages.
func Excerpt(text []byte) string {
	if len(text) > 100 {
		return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(string(text[:100]), "?"), len(text))
	}
	return strings.ToValidUTF8(string(text), "?")
}

// Sender writes frames to a worker, and records them.
type Sender struct {
	conn    net.Conn // nil before Worker.Start
	writing sync.WaitGroup
	calls   calls
	log     transcript
}

// recordSent records frames that are about to be sent, and returns their bytes.
func (s *Sender) recordSent(frames []Frame) (out []byte) {
	for _, f := range frames {
		s.log.addSent(f.Text)
		s.calls.begin(f.Opens)
		out = append(out, f.Bytes...)
	}
	return out
}

// Send writes frames in one write. It ignores errors, because the worker's next frame, or its absence, shows them.
func (s *Sender) Send(frames ...Frame) { _, _ = s.conn.Write(s.recordSent(frames)) }

// SendBehind writes frames on another goroutine: more than a worker reads while its own output is not read.
func (s *Sender) SendBehind(frames ...Frame) {
	out := s.recordSent(frames)
	s.writing.Go(func() { _, _ = s.conn.Write(out) })
}

// SendSplit writes frames byte by byte: one every 2 ms for the first 100 bytes, so that a worker reads single bytes.
func (s *Sender) SendSplit(frames ...Frame) {
	out := s.recordSent(frames)
	slowly := time.NewTicker(2 * time.Millisecond)
	defer slowly.Stop()
	for i := range out {
		if _, err := s.conn.Write(out[i : i+1]); err != nil {
			return
		}
		if i < 100 {
			<-slowly.C
		}
	}
}

// AwaitWrites waits until SendBehind has written everything.
func (s *Sender) AwaitWrites() { s.writing.Wait() }

// InFlight returns the number of calls without a RESULT.
func (s *Sender) InFlight() int { return s.calls.count() }
