package emulator

import (
	"bufio"
	"net"
	"time"
)

// helloLimit is how long one that connects may take to say what it speaks.
const helloLimit = 10 * time.Second

// welcome finds out what a connection speaks, and has it served.
func (e *Emulator) welcome(nc net.Conn) {
	e.mu.Lock()
	closed := e.closed
	e.fresh[nc] = struct{}{}
	e.mu.Unlock()
	known := func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.fresh, nc)
	}
	r := bufio.NewReaderSize(nc, 16)
	_ = nc.SetReadDeadline(time.Now().Add(helloLimit)) // a connection that cannot have one is closed, and the read fails
	first, err := r.Peek(4)
	_ = nc.SetReadDeadline(time.Time{})
	if closed || err != nil {
		known()
		_ = nc.Close() // nobody is interested any more
		return
	}
	seen := &peeked{Conn: nc, r: r}
	if string(first) != "AMQP" {
		known()
		select {
		case e.web.came <- seen:
		case <-e.stop:
			_ = nc.Close()
		}
		return
	}
	e.mu.Lock()
	delete(e.fresh, nc)
	if e.closed {
		e.mu.Unlock()
		_ = nc.Close()
		return
	}
	c := newConn(e, seen)
	e.conns[c] = struct{}{}
	e.mu.Unlock()
	c.run()
}

// peeked is a connection whose first bytes were looked at.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(to []byte) (int, error) {
	if p.r != nil {
		if p.r.Buffered() > 0 {
			return p.r.Read(to)
		}
		p.r = nil
	}
	return p.Conn.Read(to)
}

// webListener hands out the connections that speak HTTP.
type webListener struct {
	came chan net.Conn
	stop chan struct{}
}

func (l webListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.came:
		return c, nil
	case <-l.stop:
		return nil, net.ErrClosed
	}
}

func (l webListener) Close() error { return nil }

func (l webListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
