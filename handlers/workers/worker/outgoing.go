package worker

import (
	"net"
	"slices"
	"syscall"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

const (
	// minLarge is the size from which a body is written without copying it. Smaller ones are
	// copied into one buffer, which costs less than a longer list of pieces. With BenchmarkOutgoing,
	// both cost the same at 1 to 2 KiB.
	minLarge = 2 << 10
	// usualHead is more than the head of most frames, with their metadata.
	usualHead = 256
	// maxSpare is the largest buffer that is reused, in bytes.
	maxSpare = 1 << 20
	// maxPieces bounds the pieces of one write. A write that the socket accepts only in part passes
	// the rest to the kernel again.
	maxPieces = 64
)

// outgoing has frames to be written, without copies of large bodies: frames that wait for a slow
// worker use no memory in addition to the messages themselves.
type outgoing struct {
	bytes  []byte // the frames without large bodies
	large  []largeBody
	pieces net.Buffers // what writeTo writes at once; between calls it is empty
}

// largeBody is inserted after the given number of bytes.
type largeBody struct {
	at   int
	body []byte
}

// addInvoke adds an INVOKE.
func (o *outgoing) addInvoke(i *protocol.Invocation) {
	if i.Batch != nil {
		o.addBatch(i)
		return
	}
	body := i.Message.Body
	if len(body) < minLarge {
		o.grow(usualHead + len(body))
		o.bytes = protocol.AppendInvoke(o.bytes, i)
		return
	}
	o.bytes = protocol.AppendInvokeHead(o.bytes, i)
	o.large = append(o.large, largeBody{len(o.bytes), body})
}

// grow makes room for n bytes. It doubles the buffer: append adds a quarter to large ones, and so
// leaves several times their size as garbage until they have grown.
func (o *outgoing) grow(n int) {
	if room := cap(o.bytes) - len(o.bytes); room < n {
		o.bytes = slices.Grow(o.bytes, max(n, cap(o.bytes)))
	}
}

// addBatch adds an INVOKE with a batch.
func (o *outgoing) addBatch(i *protocol.Invocation) {
	start, outside := len(o.bytes), 0
	o.bytes = protocol.AppendBatchHead(o.bytes, i)
	for index, m := range i.Batch {
		o.bytes = protocol.AppendBatched(o.bytes, i, index)
		if len(m.Body) < minLarge {
			o.bytes = append(o.bytes, m.Body...)
			continue
		}
		o.large = append(o.large, largeBody{len(o.bytes), m.Body})
		outside += len(m.Body)
	}
	protocol.EndBatch(o.bytes[start:], outside)
}

// writeTo writes the frames.
func (o *outgoing) writeTo(to net.Conn) error {
	from := 0
	for _, l := range o.large {
		o.pieces = append(o.pieces, o.bytes[from:l.at], l.body)
		from = l.at
		if len(o.pieces) >= maxPieces {
			if err := o.writePieces(to); err != nil {
				return err
			}
		}
	}
	if from < len(o.bytes) {
		o.pieces = append(o.pieces, o.bytes[from:])
	}
	return o.writePieces(to)
}

// tryWrite writes what the socket accepts at once, if there are no large bodies, and reports whether
// that was everything. writeTo writes the rest, and finds the errors.
func (o *outgoing) tryWrite(to net.Conn) (all bool) {
	socket, is := to.(syscall.Conn)
	if !is || len(o.large) > 0 {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	_ = raw.Write(func(fd uintptr) (done bool) {
		n, _ = syscall.Write(int(fd), o.bytes)
		return true
	})
	o.bytes = o.bytes[:copy(o.bytes, o.bytes[max(n, 0):])]
	return len(o.bytes) == 0
}

// writePieces writes pieces, and empties it.
func (o *outgoing) writePieces(to net.Conn) error {
	all := o.pieces
	_, err := all.WriteTo(to) // it advances all, and clears what it has written
	clear(o.pieces)
	o.pieces = o.pieces[:0]
	return err
}

// reuseBuffers returns an empty outgoing that reuses the buffers unless they are too large.
func (o *outgoing) reuseBuffers() outgoing {
	if cap(o.bytes) > maxSpare {
		return outgoing{}
	}
	clear(o.large)
	return outgoing{bytes: o.bytes[:0], large: o.large[:0], pieces: o.pieces[:0]}
}
