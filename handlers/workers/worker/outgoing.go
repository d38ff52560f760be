package worker

import (
	"net"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

const (
	// minLarge is the size from which a body is written without copying it. Smaller ones are
	// copied into one buffer, which costs less than a longer list of pieces.
	minLarge = 16 << 10
	// maxSpare is the largest buffer that is reused, in bytes.
	maxSpare = 1 << 20
)

// outgoing has frames to be written, without copies of large bodies: frames that wait for a slow
// worker take no memory beyond the messages themselves.
type outgoing struct {
	bytes []byte // the frames without large bodies
	large []largeBody
}

// largeBody is inserted after the given number of bytes.
type largeBody struct {
	at   int
	body []byte
}

// addInvoke adds an INVOKE.
func (o *outgoing) addInvoke(i *protocol.Invocation) {
	body := i.Message.Body
	if len(body) < minLarge {
		o.bytes = protocol.AppendInvoke(o.bytes, i)
		return
	}
	o.bytes = protocol.AppendInvokeHead(o.bytes, i)
	o.large = append(o.large, largeBody{len(o.bytes), body})
}

func (o *outgoing) writeTo(to net.Conn) error {
	if len(o.large) == 0 {
		if len(o.bytes) == 0 {
			return nil
		}
		_, err := to.Write(o.bytes)
		return err
	}
	pieces := make(net.Buffers, 0, 2*len(o.large)+1)
	from := 0
	for _, l := range o.large {
		pieces = append(pieces, o.bytes[from:l.at], l.body)
		from = l.at
	}
	if from < len(o.bytes) {
		pieces = append(pieces, o.bytes[from:])
	}
	_, err := pieces.WriteTo(to)
	return err
}

// reuseBuffers returns an empty outgoing that reuses the buffers unless they are too large.
func (o *outgoing) reuseBuffers() outgoing {
	if cap(o.bytes) > maxSpare {
		return outgoing{}
	}
	clear(o.large)
	return outgoing{bytes: o.bytes[:0], large: o.large[:0]}
}
