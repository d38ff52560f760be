package emulator

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// server accepts connections and detects the protocol of each: AMQP, or HTTP for the admin API.
type server struct {
	serveAMQP func(net.Conn) // to the connection's end
	web       webListener
	admins    http.Server
	stop      chan struct{}
	running   sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners []net.Listener
	amqp      map[net.Conn]struct{}
	fresh     map[net.Conn]struct{} // whose protocol is not known yet
}

func newServer(serveAMQP func(net.Conn), admin http.Handler, log *slog.Logger) *server {
	s := &server{
		serveAMQP: serveAMQP, stop: make(chan struct{}),
		amqp: make(map[net.Conn]struct{}), fresh: make(map[net.Conn]struct{}),
		admins: http.Server{Handler: admin, ReadHeaderTimeout: helloLimit, IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)},
	}
	s.web = webListener{make(chan net.Conn), s.stop}
	s.running.Go(func() { _ = s.admins.Serve(s.web) }) // until Close
	return s
}

// Serve accepts connections from a listener until Close, which closes it; after Close it returns at
// once. The first bytes show whether a client speaks AMQP, or HTTP for the admin API.
func (s *server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners = append(s.listeners, l)
	s.mu.Unlock()
	for {
		nc, err := l.Accept()
		if err != nil {
			select {
			case <-s.stop:
				return nil
			default:
				return err
			}
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			_ = nc.Close() // nobody is interested any more
			return nil
		}
		s.running.Go(func() { s.welcome(nc) })
		s.mu.Unlock()
	}
}

// Close ends the namespace and all connections; its messages are lost.
func (s *server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.stop)
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	for _, conns := range []map[net.Conn]struct{}{s.amqp, s.fresh} {
		for nc := range conns {
			_ = nc.Close() // nobody is interested any more
		}
	}
	s.mu.Unlock()
	errs = append(errs, s.admins.Close())
	s.running.Wait()
	return errors.Join(errs...)
}

// DropConnections cuts all AMQP connections abruptly.
func (s *server) DropConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for nc := range s.amqp {
		_ = nc.Close() // its reader reports it
	}
}

// helloLimit bounds the time until a new connection has announced its protocol.
const helloLimit = 10 * time.Second

// welcome detects the protocol of a connection, and serves it.
func (s *server) welcome(nc net.Conn) {
	if !s.add(s.fresh, nc) {
		return
	}
	r := bufio.NewReaderSize(nc, 16)
	_ = nc.SetReadDeadline(time.Now().Add(helloLimit)) // a connection that cannot have one is closed, and the read fails
	first, err := r.Peek(4)
	_ = nc.SetReadDeadline(time.Time{})
	if err != nil {
		s.remove(s.fresh, nc)
		_ = nc.Close() // nobody is interested any more
		return
	}
	seen := &peeked{Conn: nc, r: r}
	if string(first) != "AMQP" {
		s.remove(s.fresh, nc)
		select {
		case s.web.came <- seen:
		case <-s.stop:
			_ = nc.Close()
		}
		return
	}
	if s.add(s.amqp, nc) {
		s.remove(s.fresh, nc)
		s.serveAMQP(seen)
		s.remove(s.amqp, nc)
	}
}

// add registers a connection, for Close. After Close it closes the connection and returns false.
func (s *server) add(to map[net.Conn]struct{}, nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = nc.Close() // nobody is interested any more
		return false
	}
	to[nc] = struct{}{}
	return true
}

func (s *server) remove(from map[net.Conn]struct{}, nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(from, nc)
}

// peeked is a connection of which the first bytes were read.
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

// webListener returns the HTTP connections.
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
