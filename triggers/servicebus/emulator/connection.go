package emulator

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// The limits of the emulator are the same as the service's.
const (
	incomingWindow = 5000
	senderCredit   = 1000
	maxChannels    = 5000
	maxHandles     = 256
	// idleTimeout is the idle timeout that the emulator announces, the same as the service's.
	idleTimeout = 4 * time.Minute
)

var (
	protoSASL = []byte{'A', 'M', 'Q', 'P', 3, 1, 0, 0}
	protoAMQP = []byte{'A', 'M', 'Q', 'P', 0, 1, 0, 0}
)

// conn is one connection. Its reader handles frames with the namespace locked; a writer sends the
// queued frames.
type conn struct {
	*host
	nc net.Conn

	// These fields are guarded by the namespace's lock.
	sessions  map[uint16]*session // by the other side's channel
	ended     map[uint16]bool     // channels whose session has ended
	rights    rights
	hasClaims bool // there is a link to $cbs, at most one

	mu     sync.Mutex
	out    []byte
	closed bool // nothing more is queued; the writer ends when all is sent
	wake   chan struct{}
}

func newConn(h *host, nc net.Conn) *conn {
	return &conn{host: h, nc: nc, sessions: make(map[uint16]*session), ended: make(map[uint16]bool), rights: make(rights), wake: make(chan struct{}, 1)}
}

// run serves the connection to its end.
func (c *conn) run() {
	var writing sync.WaitGroup
	writing.Go(c.write)
	err := c.serve()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		c.Log.Debug("a connection ended", "from", c.nc.RemoteAddr(), "error", err)
	}
	c.namespace.Lock()
	for _, s := range c.sessions {
		s.endLinks()
	}
	c.namespace.Unlock()
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
		f, err := codec.ReadFrame(r)
		if err != nil {
			return err
		}
		if f.Op == 0 {
			continue
		}
		c.faults.wait()
		c.namespace.Lock()
		end, cond := c.handleFrame(f)
		c.namespace.Unlock()
		if cond != nil {
			c.send(0, codec.OpClose, []any{cond.Value()}, nil)
			return cond
		}
		if end {
			c.send(0, codec.OpClose, nil, nil)
			return nil
		}
	}
}

// proto reads the client's protocol header, and answers with the same.
func (c *conn) proto(r io.Reader, want []byte) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	c.enqueue(want)
	if !bytes.Equal(head[:], want) {
		return errors.New("it speaks another protocol")
	}
	return nil
}

// sasl accepts every client: rights are granted by $cbs.
func (c *conn) sasl(r io.Reader) error {
	if err := c.proto(r, protoSASL); err != nil {
		return err
	}
	mechanisms := []codec.Symbol{"MSSBCBS", "ANONYMOUS", "EXTERNAL"}
	c.enqueue(codec.AppendFrame(nil, codec.SASLType, 0, codec.OpMechanisms, []any{mechanisms}, nil))
	f, err := codec.ReadFrame(r)
	if err != nil {
		return err
	}
	if f.Type != codec.SASLType || f.Op != codec.OpInit {
		return errors.New("no SASL init")
	}
	c.enqueue(codec.AppendFrame(nil, codec.SASLType, 0, codec.OpOutcome, []any{uint8(0)}, nil))
	return nil
}

// handleFrame handles one frame; the namespace is locked. end is set if the client closes the
// connection.
func (c *conn) handleFrame(f codec.Frame) (end bool, _ *codec.Condition) {
	switch f.Op {
	case codec.OpOpen:
		c.send(0, codec.OpOpen, []any{"emulator", nil, uint32(codec.MaxFrame), uint16(maxChannels - 1), uint32(idleTimeout / time.Millisecond)}, nil)
		return false, nil
	case codec.OpClose:
		return true, nil
	case codec.OpBegin:
		if len(c.sessions) == maxChannels {
			return false, codec.Failure(codec.CondNotAllowed, "more than %d sessions", maxChannels)
		}
		c.sessions[f.Channel] = newSession(c, f)
		delete(c.ended, f.Channel)
		c.send(f.Channel, codec.OpBegin, []any{f.Channel, uint32(0), uint32(incomingWindow), uint32(incomingWindow), uint32(maxHandles - 1)}, nil)
		return false, nil
	}
	s := c.sessions[f.Channel]
	if c.ended[f.Channel] {
		// The Go SDK may detach a link after it has ended its session, if it gave up the attach.
		// Other sessions of the connection must not be affected.
		return false, nil
	}
	if s == nil {
		return false, codec.Failure(codec.CondNotAllowed, "a frame on channel %d, which has no session", f.Channel)
	}
	if f.Op == codec.OpEnd {
		s.endLinks()
		delete(c.sessions, f.Channel)
		c.ended[f.Channel] = true
		c.send(f.Channel, codec.OpEnd, nil, nil)
		return false, nil
	}
	return false, s.handleFrame(f)
}

// send queues a frame.
func (c *conn) send(channel uint16, op uint64, fields []any, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.out = codec.AppendFrame(c.out, codec.AMQPType, channel, op, fields, payload)
	c.wakeUp()
}

func (c *conn) enqueue(data []byte) {
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

// finish makes the writer end when everything is sent.
func (c *conn) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.wakeUp()
}

// abort cuts the connection abruptly.
func (c *conn) abort() { _ = c.nc.Close() }

// writeLimit is how long a write to a client that does not read may take.
const writeLimit = 30 * time.Second

// write sends all queued frames together, and an empty frame after an idle time.
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
			batch = codec.AppendFrame(batch, codec.AMQPType, 0, 0, nil, nil)
		}
		if len(batch) > 0 {
			c.faults.wait()
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
			c.wakeUp() // once more, for data that arrived meanwhile
		}
		if spare = batch; cap(spare) > 1<<20 {
			spare = nil
		}
	}
}
