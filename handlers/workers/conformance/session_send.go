package conformance

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// This file makes frames, and sends them.

func hello(can []string) frame {
	return jsonFrame(protocol.Hello, protocol.HelloFrame{Protocol: protocol.Version, MaxFrame: maxFrame, Capabilities: can})
}

func jsonFrame(kind protocol.Kind, value any) frame {
	out, err := protocol.AppendJSON(nil, kind, value)
	if err != nil {
		panic(err) // of our own making
	}
	return frame{text: fmt.Sprintf("%v %s", kind, excerpt(out[5:])), bytes: out}
}

// excerpt is the beginning of a payload, for people.
func excerpt(text []byte) string {
	if len(text) > 100 {
		return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(string(text[:100]), "?"), len(text))
	}
	return strings.ToValidUTF8(string(text), "?")
}

// raw is a frame of any kind and payload.
func raw(kind protocol.Kind, payload []byte) frame {
	out := binary.LittleEndian.AppendUint32(nil, uint32(1+len(payload)))
	return frame{text: fmt.Sprintf("%v of %d bytes", kind, 1+len(payload)), bytes: append(append(out, byte(kind)), payload...)}
}

// invoke is an INVOKE of a function of the app.
func invoke(id uint32, function, body string) frame {
	return invocation(function, &protocol.Invocation{ID: id, Message: &triggers.Message{ID: fmt.Sprint("m", id), Attempt: 1, Body: []byte(body)}})
}

// invocation is an INVOKE with all that may be in it.
func invocation(function string, i *protocol.Invocation) frame {
	i.Function = uint16(slices.Index(functions, function))
	return frame{
		text:  fmt.Sprintf("INVOKE %d of %s (%d bytes)", i.ID, function, len(i.Message.Body)),
		bytes: protocol.AppendInvoke(nil, i), opens: []uint32{i.ID},
	}
}

func cancel(id uint32) frame {
	return frame{text: fmt.Sprint("CANCEL ", id), bytes: protocol.AppendCancel(nil, id)}
}

func drain() frame { return frame{text: "DRAIN", bytes: protocol.AppendDrain(nil)} }

// noted takes frames into the books, before they are sent.
func (s *session) noted(frames []frame) (out []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range frames {
		s.sent.add(f.text)
		out = append(out, f.bytes...)
		for _, id := range f.opens {
			s.open[id] = true
		}
	}
	return out
}

// send writes frames in one go. That a worker does not take them shows in what it
// answers.
func (s *session) send(frames ...frame) { _, _ = s.process.conn.Write(s.noted(frames)) }

// sendBehind writes frames while the check goes on: more than a worker takes that
// waits for us to read.
func (s *session) sendBehind(frames ...frame) {
	out := s.noted(frames)
	s.writing.Go(func() { _, _ = s.process.conn.Write(out) })
}

// sendSplit writes frames byte by byte, the first of them so slowly that a worker
// reads one at a time.
func (s *session) sendSplit(frames ...frame) {
	out := s.noted(frames)
	slowly := time.NewTicker(2 * time.Millisecond)
	defer slowly.Stop()
	for i := range out {
		if _, err := s.process.conn.Write(out[i : i+1]); err != nil {
			return
		}
		if i < 100 {
			<-slowly.C
		}
	}
}
