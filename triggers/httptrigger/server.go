package httptrigger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/httptrigger/response"
	"github.com/drover-run/drover/triggers/httptrigger/routes"
)

const (
	// headerTimeout is the default of ServerConfig.HeaderTimeout, and maxHeaders the maximum size
	// of headers, the same as in Azure's host. idleTimeout is how long a connection without
	// requests stays open.
	headerTimeout = 10 * time.Second
	maxHeaders    = 32 << 10
	idleTimeout   = 2 * time.Minute
	// closeLimit bounds how long Close waits for responses that are being written.
	closeLimit = 5 * time.Second
)

// ServerConfig is the configuration of a server.
type ServerConfig struct {
	Address string // HOST:PORT; port 0 picks a free one
	// Shared is set if several processes listen on the address. The kernel distributes the
	// connections among them.
	Shared bool
	// HeaderTimeout is how long a client may take to send the headers of a request; 0 is 10 seconds.
	HeaderTimeout time.Duration
	// Run runs a function, of any kind, on a delivery that no trigger received. found is false if
	// there is no such function; the error is why it cannot run now. Nil: POST /admin/functions/NAME
	// is not served.
	Run func(function string, d *triggers.Delivery) (found bool, err error)
	Log *slog.Logger
}

// Server listens for the requests of all functions.
type Server struct {
	cfg         ServerConfig
	http        *http.Server
	outstanding atomic.Int64 // requests
	serving     sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while it does not listen
	address  string
	open     map[string][]*Trigger   // by function; the last is in use, others still drain
	table    *routes.Table[*Trigger] // of those in use; nil: to be built
	access   Access                  // of the trigger that was opened last
	closed   bool
}

// NewServer returns a server. It listens while a trigger is open.
func NewServer(cfg ServerConfig) *Server {
	s := &Server{cfg: cfg, open: make(map[string][]*Trigger)}
	s.http = &http.Server{
		Handler: s, ReadHeaderTimeout: cmp.Or(cfg.HeaderTimeout, headerTimeout), MaxHeaderBytes: maxHeaders, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Open opens the trigger of a function. It takes the place of one of the same function that is
// still open, for new requests.
func (s *Server) Open(ctx context.Context, cfg Config) (*Trigger, error) {
	t := &Trigger{cfg: cfg, server: s, wake: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.listen(ctx); err != nil {
		return nil, err
	}
	s.open[cfg.Function] = append(s.open[cfg.Function], t)
	s.table = nil
	return t, nil
}

// listen starts to listen, unless the server does; mu is held.
func (s *Server) listen(ctx context.Context) error {
	if s.closed {
		return errClosed
	}
	if s.listener != nil {
		return nil
	}
	address := s.cfg.Address
	if s.address != "" {
		address = s.address // the port that it picked
	}
	listener, err := listen(ctx, address, s.cfg.Shared)
	if err != nil {
		return fmt.Errorf("the server of HTTP functions: %w", err)
	}
	s.listener, s.address = listener, listener.Addr().String()
	s.http.SetKeepAlivesEnabled(true)
	s.serving.Go(func() {
		err := s.http.Serve(listener)
		if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.cfg.Log.Error("the server of HTTP functions has ended", "error", err)
		}
	})
	return nil
}

// Address returns the address that the server listens on; empty before it has.
func (s *Server) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

func (s *Server) addOutstanding(n int64) int64 { return s.outstanding.Add(n) }

// adminRuns returns what runs functions by their names.
func (s *Server) adminRuns() adminRuns {
	s.mu.Lock()
	defer s.mu.Unlock()
	return adminRuns{s.access, s.cfg.Run, s.cfg.Log}
}

// removeTrigger removes a trigger. An earlier one of the same function is in use again.
func (s *Server) removeTrigger(t *Trigger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := t.cfg.Function
	s.open[name] = slices.DeleteFunc(slices.Clone(s.open[name]), func(o *Trigger) bool { return o == t })
	if len(s.open[name]) == 0 {
		delete(s.open, name)
	}
	s.table = nil
	s.stopIfUnused()
}

// triggerDrains is called when a trigger refuses new requests.
func (s *Server) triggerDrains() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopIfUnused()
}

// stopIfUnused stops listening if no trigger accepts requests, so that clients connect to another
// instance; mu is held. Connections in use get their responses.
func (s *Server) stopIfUnused() {
	if s.listener == nil {
		return
	}
	for _, all := range s.open {
		if t := all[len(all)-1]; !t.isEnding() {
			return
		}
	}
	_ = s.listener.Close() // it was open
	s.listener = nil
	s.http.SetKeepAlivesEnabled(false)
}

func (t *Trigger) isEnding() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.draining || t.closed
}

// Close disconnects all clients, after a while for responses that are being written. It must be
// called after all triggers were closed.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close() // a client that does not read its response
	}
	s.serving.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// findRoute returns the trigger of a request.
func (s *Server) findRoute(r *http.Request) (m routes.Match[*Trigger], allowed []string, found bool) {
	s.mu.Lock()
	table := s.table
	if table == nil {
		table = s.buildTable()
		s.table = table
	}
	s.mu.Unlock()
	return table.Find(r.Method, r.URL)
}

// buildTable makes the table of the routes in use; mu is held.
func (s *Server) buildTable() *routes.Table[*Trigger] {
	out := new(routes.Table[*Trigger])
	for _, name := range slices.Sorted(maps.Keys(s.open)) {
		t := s.open[name][len(s.open[name])-1]
		out.Add(t.cfg.Route, t.cfg.Methods, t)
		s.access = t.cfg.Access
	}
	return out
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !isCleanPath(r.URL.Path) {
		answer(w, response.BadPath)
		return
	}
	m, allowed, found := s.findRoute(r)
	if found {
		m.Value.serve(w, r, m.Params)
		return
	}
	name, isAdmin := strings.CutPrefix(r.URL.Path, adminPrefix)
	switch {
	case len(allowed) > 0:
		answer(w, &response.Response{
			Status: http.StatusMethodNotAllowed, Headers: [][2]string{{"Allow", strings.Join(allowed, ", ")}},
			Body: []byte("this route has the methods " + strings.Join(allowed, ", ") + "\n"),
		})
	case isAdmin && s.cfg.Run != nil:
		answer(w, s.adminRuns().runByName(w, r, name))
	case r.URL.Path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		answer(w, &response.Response{Status: http.StatusOK, Body: []byte("drover is running\n")})
	default:
		answer(w, response.NotFound)
	}
}

// answer answers a request that is for no trigger.
func answer(w http.ResponseWriter, out *response.Response) {
	out.Write(w, http.NewResponseController(w))
}

// isCleanPath reports whether a path has no dot segments, backslashes and control characters.
// Clients resolve dot segments themselves; those that do not may be looking for files.
func isCleanPath(path string) bool {
	if strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == '\x7f' || c == '\\' }) {
		return false
	}
	for rest := path; ; {
		at := strings.Index(rest, "/.")
		if at < 0 {
			return true
		}
		rest = rest[at+1:]
		segment, _, _ := strings.Cut(rest, "/")
		if segment == "." || segment == ".." {
			return false
		}
	}
}
