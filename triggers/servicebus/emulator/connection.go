package emulator

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// What the emulator grants: the service's own numbers.
const (
	incomingWindow = 5000
	senderCredit   = 1000
	maxChannels    = 5000
	maxHandles     = 256
	// idleTimeout is what we ask of the other side, as the service does.
	idleTimeout = 4 * time.Minute
)

var (
	protoSASL = []byte{'A', 'M', 'Q', 'P', 3, 1, 0, 0}
	protoAMQP = []byte{'A', 'M', 'Q', 'P', 0, 1, 0, 0}
)

// conn is one connection. Its reader handles frames under e.mu; a writer sends
// what that queued.
type conn struct {
	e  *Emulator
	nc net.Conn

	sessions map[uint16]*session // by the other side's channel; e.mu guards it
	ended    map[uint16]bool     // channels whose session has ended; likewise
	rights   rights              // likewise
	claims   *link               // to $cbs, of which there is one at most; likewise

	mu     sync.Mutex
	out    []byte
	closed bool // nothing more is queued; the writer ends when all is sent
	wake   chan struct{}
}

func newConn(e *Emulator, nc net.Conn) *conn {
	return &conn{e: e, nc: nc, sessions: make(map[uint16]*session), ended: make(map[uint16]bool), rights: newRights(), wake: make(chan struct{}, 1)}
}

// run serves the connection to its end.
func (c *conn) run() {
	var writing sync.WaitGroup
	writing.Go(c.write)
	err := c.serve()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		c.e.options.Log.Debug("a connection ended", "from", c.nc.RemoteAddr(), "error", err)
	}
	c.e.mu.Lock()
	for _, s := range c.sessions {
		s.end()
	}
	delete(c.e.conns, c)
	c.e.mu.Unlock()
	c.finish()
	writing.Wait()
	_ = c.nc.Close() // it may be closed already
}

func (c *conn) serve() error {
	r := bufio.NewReaderSize(c.nc, 64<<10)
	if err := c.sasl(r); err != nil {
		return err
	}
	if err := c.proto(r, protoAMQP); err != nil {
		return err
	}
	for {
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		if f.op == 0 {
			continue
		}
		c.e.faults.wait()
		c.e.mu.Lock()
		end, cond := c.frame(f)
		c.e.mu.Unlock()
		if cond != nil {
			c.send(0, opClose, []any{cond.value()}, nil)
			return cond
		}
		if end {
			c.send(0, opClose, nil, nil)
			return nil
		}
	}
}

// proto reads the protocol that the other side speaks, and answers with the same.
func (c *conn) proto(r io.Reader, want []byte) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	c.queue(want)
	if !bytes.Equal(head[:], want) {
		return errors.New("it speaks another protocol")
	}
	return nil
}

// sasl accepts every client: $cbs gets the rights.
func (c *conn) sasl(r io.Reader) error {
	if err := c.proto(r, protoSASL); err != nil {
		return err
	}
	mechanisms := []symbol{"MSSBCBS", "ANONYMOUS", "EXTERNAL"}
	c.queue(appendFrame(nil, saslType, 0, opMechanisms, []any{mechanisms}, nil))
	f, err := readFrame(r)
	if err != nil {
		return err
	}
	if f.kind != saslType || f.op != opInit {
		return errors.New("no SASL init")
	}
	c.queue(appendFrame(nil, saslType, 0, opOutcome, []any{uint8(0)}, nil))
	return nil
}

// frame handles one frame; e.mu is locked. end says that the other side closes.
func (c *conn) frame(f frame) (end bool, _ *condition) {
	switch f.op {
	case opOpen:
		c.send(0, opOpen, []any{"emulator", nil, uint32(maxFrame), uint16(maxChannels - 1), uint32(idleTimeout / time.Millisecond)}, nil)
		return false, nil
	case opClose:
		return true, nil
	case opBegin:
		if len(c.sessions) == maxChannels {
			return false, failure(condNotAllowed, "more than %d sessions", maxChannels)
		}
		s := &session{c: c, channel: f.channel, links: make(map[uint32]*link)}
		s.window = field[uint32](f.fields, 2)
		c.sessions[f.channel] = s
		delete(c.ended, f.channel)
		c.send(f.channel, opBegin, []any{f.channel, uint32(0), uint32(incomingWindow), uint32(incomingWindow), uint32(maxHandles - 1)}, nil)
		return false, nil
	}
	s := c.sessions[f.channel]
	if c.ended[f.channel] {
		// The Go SDK may detach a link, whose attach it gave up, after it ended the
		// session: other sessions of the connection must not suffer.
		return false, nil
	}
	if s == nil {
		return false, failure(condNotAllowed, "a frame on channel %d, which has no session", f.channel)
	}
	if f.op == opEnd {
		s.end()
		delete(c.sessions, f.channel)
		c.ended[f.channel] = true
		c.send(f.channel, opEnd, nil, nil)
		return false, nil
	}
	return false, s.frame(f)
}

// send queues a frame.
func (c *conn) send(channel uint16, op uint64, fields []any, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.out = appendFrame(c.out, amqpType, channel, op, fields, payload)
	c.wakeUp()
}

func (c *conn) queue(data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, data...)
	c.wakeUp()
}

func (c *conn) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// finish has the writer end when everything is sent.
func (c *conn) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.wakeUp()
}

// abort cuts the connection, as a broken cable does.
func (c *conn) abort() { _ = c.nc.Close() }

// writeLimit is how long a peer may take that does not read.
const writeLimit = 30 * time.Second

// write sends what is queued, all of it at once, and a sign of life when there
// was nothing for a while.
func (c *conn) write() {
	signs := time.NewTicker(30 * time.Second)
	defer signs.Stop()
	var spare []byte
	for {
		sign := false
		select {
		case <-c.wake:
		case <-signs.C:
			sign = true
		}
		c.mu.Lock()
		batch, closed := c.out, c.closed
		c.out = spare[:0]
		c.mu.Unlock()
		if sign && len(batch) == 0 && !closed {
			batch = appendFrame(batch, amqpType, 0, 0, nil, nil)
		}
		if len(batch) > 0 {
			c.e.faults.wait()
			_ = c.nc.SetWriteDeadline(time.Now().Add(writeLimit)) // a closed one fails below
			if _, err := c.nc.Write(batch); err != nil {
				c.abort()
				return
			}
		}
		if closed && len(batch) == 0 {
			return
		}
		if closed {
			c.wakeUp() // once more, for what came meanwhile
		}
		if spare = batch; cap(spare) > 1<<20 {
			spare = nil
		}
	}
}

// session is one AMQP session; e.mu guards it.
type session struct {
	c       *conn
	channel uint16
	links   map[uint32]*link // by the other side's handle

	window     uint32     // frames that the other side takes
	outgoing   uint32     // the id of our next transfer
	deliveries uint32     // the id of our next delivery
	blocked    []transfer // that wait for the window
	incoming   uint32     // transfers that came
	granted    uint32     // of those, when the window was sent last
}

// transfer is a frame with a message, or a part of one.
type transfer struct {
	link    *link
	fields  []any
	payload []byte
}

// flush sends the transfers that the window has room for.
func (s *session) flush() {
	for len(s.blocked) > 0 && s.window > 0 {
		t := s.blocked[0]
		s.blocked = s.blocked[1:]
		s.c.send(s.channel, opTransfer, t.fields, t.payload)
		s.window--
		s.outgoing++
	}
}

func (s *session) end() {
	for handle, l := range s.links {
		l.gone()
		delete(s.links, handle)
	}
}

func (s *session) frame(f frame) *condition {
	switch f.op {
	case opAttach:
		return s.attach(f.fields)
	case opFlow:
		s.flow(f.fields)
		return nil
	case opDisposition:
		s.disposition(f.fields)
		return nil
	case opTransfer:
		s.incoming++
		if s.incoming-s.granted >= incomingWindow/2 {
			s.grant()
		}
	}
	l := s.links[field[uint32](f.fields, 0)]
	if l == nil {
		if f.op == opTransfer {
			return nil // it crossed our detach
		}
		return failure(condNotAllowed, "no link has the handle %d", field[uint32](f.fields, 0))
	}
	switch f.op {
	case opTransfer:
		l.transfer(f)
	case opDetach:
		l.gone()
		delete(s.links, l.handle)
		if !l.detached {
			s.c.send(s.channel, opDetach, []any{l.handle, true}, nil)
		}
	default:
		return failure(condNotImpl, "a frame of type 0x%x", f.op)
	}
	return nil
}

// grant sends the number of transfers that are accepted.
func (s *session) grant() {
	s.granted = s.incoming
	s.c.send(s.channel, opFlow, []any{s.incoming, uint32(incomingWindow), s.outgoing, uint32(incomingWindow)}, nil)
}

func (s *session) flow(fields []any) {
	inTransit := s.outgoing - field[uint32](fields, 0)
	size := field[uint32](fields, 1)
	s.window = size - min(inTransit, size)
	s.flush()
	var q *queue
	if has(fields, 4) {
		if l := s.links[field[uint32](fields, 4)]; l != nil && !l.fromPeer {
			l.credit = field[uint32](fields, 5) + field[uint32](fields, 6) - l.count
			l.drain = field[bool](fields, 8)
			l.sendAnswers()
			if q = l.queue; q != nil {
				q.pump()
			}
			if l.drain {
				l.count += l.credit
				l.credit = 0
			}
			if l.drain || field[bool](fields, flowEcho) {
				s.c.send(s.channel, opFlow, []any{s.incoming, uint32(incomingWindow), s.outgoing, uint32(incomingWindow),
					l.handle, l.count, l.credit, nil, l.drain}, nil)
			}
		}
	}
	if q == nil {
		for _, l := range s.links {
			l.sendAnswers()
			if l.queue != nil && !l.fromPeer {
				l.queue.pump()
			}
		}
	}
	if field[bool](fields, flowEcho) {
		s.grant()
	}
}

// flowEcho is the place of the field by which the other side asks for a flow.
const flowEcho = 9

// maxRange bounds how many deliveries are settled at once.
const maxRange = 1 << 16

// disposition settles deliveries over the links of the session.
func (s *session) disposition(fields []any) {
	first := field[uint32](fields, 1)
	last := first
	if has(fields, 2) {
		last = field[uint32](fields, 2)
	}
	if !field[bool](fields, 0) || last-first > maxRange {
		return // of what we received: it is settled already
	}
	settled := field[bool](fields, 3)
	v := outcome(fields)
	for id := first; ; id++ {
		l, x := s.leaseOf(id)
		cond := errLost
		if x != nil {
			cond = l.settle(x, v)
		}
		if !settled { // else nobody waits
			s.answer(id, v, cond)
		}
		if id == last {
			return
		}
	}
}

// leaseOf finds the message of a delivery.
func (s *session) leaseOf(id uint32) (*link, *entry) {
	for _, l := range s.links {
		if x := l.leased[id]; x != nil {
			return l, x
		}
	}
	return nil, nil
}

// outcome reads what a disposition says of a message.
func outcome(fields []any) verdict {
	code, values := composite(at(fields, 4))
	v := verdict{kind: released, outcome: code}
	switch code {
	case typeAccepted:
		v.kind = completed
	case typeModified:
		v.kind, v.properties = abandoned, properties(field[map[any]any](values, 2))
		if field[bool](values, 1) {
			v.kind = deferred
		}
	case typeRejected:
		v.kind = deadLettered
		if _, cond := composite(at(values, 0)); len(cond) > 0 {
			v.properties = properties(field[map[any]any](cond, 2))
			v.description = field[string](cond, 1)
			if name := field[symbol](cond, 0); name != condDeadLetter {
				v.reason = string(name)
			}
			for key, to := range map[string]*string{deadLetterReason: &v.reason, deadLetterDescription: &v.description} {
				text, isText := v.properties[key].(string)
				if isText {
					*to = text
				}
				if isText || v.properties[key] == nil {
					delete(v.properties, key)
				}
			}
		}
	default:
		v.outcome = typeReleased
	}
	return v
}

// properties are a map of a frame as application properties.
func properties(m map[any]any) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		name, ok := k.(string)
		if s, is := k.(symbol); is {
			name, ok = string(s), true
		}
		switch v.(type) {
		case described, []any, map[any]any:
			ok = false // no application property
		}
		if ok {
			out[name] = v
		}
	}
	return out
}
