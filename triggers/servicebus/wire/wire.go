// Package wire changes the messages of Azure Service Bus before the SDK reads them, so that the
// SDK can. The SDK converts messages with unchecked type assertions: without this, a sender
// could crash the process with one property.
package wire

import (
	"encoding/binary"
	"net"
)

// New returns an AMQP connection over c. Its Read returns whole frames, in which messages are
// changed that the SDK cannot read (see repair.go). One goroutine reads at a time.
func New(c net.Conn) net.Conn { return &conn{Conn: c} }

type conn struct {
	net.Conn
	store []byte // what buf is a part of
	buf   []byte
	base  int64 // the place of buf[0] in the stream
	ready int   // buf[:ready] can be passed on
	seen  int   // buf[:seen] are whole frames
	raw   bool  // the bytes are no frames: all is passed on as it is

	parts   map[linkKey]*parted
	passing map[linkKey]bool // a delivery whose remaining frames are only data
}

// linkKey names a link of the connection.
type linkKey struct {
	channel uint16
	handle  uint32
}

// parted is a message that comes in several frames.
type parted struct {
	from    int64 // its first frame
	message []byte
	pieces  []piece
}

type piece struct {
	at  int64
	len int
}

const (
	// readSize is how much room a read has, in bytes, at least.
	readSize = 32 << 10
	// maxWireFrame is far above the frame size that the SDK asks for.
	maxWireFrame = 16 << 20
	// maxHeld bounds what is kept of a message until its last frame has come. A larger one is
	// passed on unchanged. Messages of the service have 100 MiB at most, but those are data,
	// of which nothing is kept.
	maxHeld = 32 << 20
)

// Read implements net.Conn.
func (w *conn) Read(p []byte) (int, error) {
	for w.ready == 0 {
		w.makeRoom()
		n, err := w.Conn.Read(w.buf[len(w.buf):cap(w.buf)])
		w.buf = w.buf[:len(w.buf)+n]
		w.scan()
		if err != nil && w.ready == 0 {
			return 0, err
		}
	}
	n := copy(p, w.buf[:w.ready])
	w.base += int64(n)
	w.ready -= n
	w.seen -= n
	w.buf = w.buf[n:]
	return n, nil
}

// makeRoom lets buf have room for one more read.
func (w *conn) makeRoom() {
	switch {
	case len(w.buf) == 0 && cap(w.store) > 0 && cap(w.store) <= 8*readSize:
		w.buf = w.store[:0]
	case cap(w.buf)-len(w.buf) >= readSize:
	case len(w.buf) <= cap(w.store)-2*readSize && len(w.buf) <= cap(w.store)/2:
		w.buf = w.store[:copy(w.store[:cap(w.store)], w.buf)]
	default:
		w.store = append(make([]byte, 0, 2*len(w.buf)+2*readSize), w.buf...)
		w.buf = w.store
	}
}

// scan looks at the frames that came, and sets how much can be passed on.
func (w *conn) scan() {
	for !w.raw && len(w.buf)-w.seen >= 8 {
		rest := w.buf[w.seen:]
		if string(rest[:4]) == "AMQP" { // a protocol header
			w.seen += 8
			continue
		}
		size := binary.BigEndian.Uint32(rest)
		if size < 8 || size > maxWireFrame {
			w.raw = true
			break
		}
		if len(rest) < int(size) {
			break
		}
		w.frame(rest[:size], w.base+int64(w.seen))
		w.seen += int(size)
	}
	if w.raw {
		w.ready, w.seen = len(w.buf), len(w.buf)
		return
	}
	w.ready = w.seen
	for _, m := range w.parts {
		w.ready = min(w.ready, int(m.from-w.base))
	}
}

// The AMQP performatives that matter here (OASIS AMQP 1.0, part 2.7).
const (
	performativeAttach   = 0x12
	performativeTransfer = 0x14
	performativeDetach   = 0x16
	performativeClose    = 0x18
)

// frame repairs the message of a frame that came at a place of the stream.
func (w *conn) frame(f []byte, at int64) {
	start := 4 * int(f[4])
	if f[5] != 0 || start < 8 || start >= len(f) { // SASL, or empty
		return
	}
	body := f[start:]
	code, list, ok := descriptor(body, 0)
	if !ok {
		return
	}
	switch {
	case code == performativeAttach:
		liftLimit(body, list)
		return
	case code >= performativeDetach && code <= performativeClose:
		clear(w.parts) // what was not whole never will be
		clear(w.passing)
		return
	case code != performativeTransfer:
		return
	}
	t, end := readTransfer(body, list)
	if end < 0 {
		return
	}
	key := linkKey{binary.BigEndian.Uint16(f[6:]), t.handle}
	payload := body[end:]
	m := w.parts[key]
	switch {
	case t.aborted:
		delete(w.parts, key)
		delete(w.passing, key)
		return
	case m == nil && w.passing[key]:
		if !t.more {
			delete(w.passing, key)
		}
		return
	case m == nil && !t.more:
		repair(payload, true)
		return
	case m == nil:
		m = &parted{from: at}
		if w.parts == nil {
			w.parts, w.passing = make(map[linkKey]*parted), make(map[linkKey]bool)
		}
		w.parts[key] = m
	}
	m.message = append(m.message, payload...)
	m.pieces = append(m.pieces, piece{at + int64(len(f)-len(payload)), len(payload)})
	if t.more && !hasData(m.message) && len(m.message) < maxHeld {
		return
	}
	if repair(m.message, !t.more) {
		changed := m.message
		for _, p := range m.pieces {
			changed = changed[copy(w.buf[p.at-w.base:][:p.len], changed):]
		}
	}
	delete(w.parts, key)
	if t.more {
		w.passing[key] = true
	}
}

// transfer is what matters of a performative of that name.
type transfer struct {
	handle        uint32
	more, aborted bool
}

// readTransfer reads the list at a place, and returns where it ends; -1 if it is none.
func readTransfer(b []byte, i int) (t transfer, end int) {
	end = fields(b, i, func(k, j int) {
		switch {
		case k == 0 && b[j] == 0x52:
			t.handle = uint32(b[j+1])
		case k == 0 && b[j] == 0x70:
			t.handle = binary.BigEndian.Uint32(b[j+1:])
		case k == 5:
			t.more = isTrue(b, j)
		case k == 9:
			t.aborted = isTrue(b, j)
		}
	})
	return t, end
}

// liftLimit removes the largest size from an attach of the service as a sender. The SDK would
// cut the link on a larger message, again and again: one from before the entity's limit was
// lowered, or an answer with several messages.
func liftLimit(b []byte, i int) {
	sends := false
	fields(b, i, func(k, j int) {
		switch {
		case k == 2: // the role: true is a receiver
			sends = !isTrue(b, j)
		case k == 10 && sends && (b[j] == 0x53 || b[j] == 0x80):
			clear(b[j+1 : j+1+width(b[j])])
		}
	})
}

func isTrue(b []byte, i int) bool { return b[i] == 0x41 || b[i] == 0x56 && b[i+1] == 1 }

// fields calls do with the number and the place of each field of the list at i, and returns where
// the list ends; -1 if it is none.
func fields(b []byte, i int, do func(k, at int)) (end int) {
	j, count := elements(b, i)
	if end = skip(b, i, maxDepth); j < 0 || end < 0 {
		return -1
	}
	for k := range count {
		next := skip(b, j, maxDepth)
		if next < 0 || next > end {
			return -1
		}
		do(k, j)
		j = next
	}
	return end
}
