// Package wire changes messages of Azure Service Bus so that the SDK can read them. The SDK converts
// messages with unchecked type assertions: without this package, a sender could crash the process
// with one property.
package wire

import (
	"encoding/binary"
	"net"
)

// New returns an AMQP connection over c. Its Read returns whole frames, and changes messages that
// the SDK cannot read (see repair.go). One goroutine reads at a time.
func New(c net.Conn) net.Conn { return &conn{Conn: c} }

type conn struct {
	net.Conn
	store []byte // the buffer that contains buf
	buf   []byte
	base  int64 // the position of buf[0] in the stream
	ready int   // buf[:ready] can be returned
	seen  int   // buf[:seen] are whole frames
	raw   bool  // the bytes are not frames: all are returned unchanged

	parts   map[linkKey]*parted
	passing map[linkKey]bool // deliveries whose remaining frames have only data
}

// linkKey identifies a link of the connection.
type linkKey struct {
	channel uint16
	handle  uint32
}

// parted is a message that consists of several frames.
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
	// readSize is the minimum buffer space of a read, in bytes.
	readSize = 32 << 10
	// maxWireFrame is far above the frame size that the SDK requests.
	maxWireFrame = 16 << 20
	// maxHeld bounds the bytes kept of a message until its last frame has arrived. A larger message
	// is returned unchanged. Messages of the service have up to 100 MiB, but of data, which is
	// not kept.
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

// makeRoom makes room in buf for one more read.
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

// scan examines the frames that have arrived, and sets how many bytes can be returned.
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

// The relevant AMQP performatives (OASIS AMQP 1.0, part 2.7).
const (
	performativeAttach   = 0x12
	performativeTransfer = 0x14
	performativeDetach   = 0x16
	performativeClose    = 0x18
)

// frame repairs the message in a frame; at is the position of the frame in the stream.
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
		clear(w.parts) // incomplete messages will not be completed
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

// transfer has the relevant fields of a transfer performative.
type transfer struct {
	handle        uint32
	more, aborted bool
}

// readTransfer parses the list at i, and returns its end; -1 if it is not a list.
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

// liftLimit removes the maximum message size from an attach of the service as a sender. The SDK
// would close the link on a larger message, repeatedly: a message from before the entity's limit
// was lowered, or a response with several messages.
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

// fields calls do with the number and the position of each field of the list at i, and returns the
// end of the list; -1 if it is not a list.
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
