package admin

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
)

const (
	// maxHeader is the maximum size of a request's header, in bytes.
	maxHeader = 16 << 10
	// readTimeout bounds the reading of a request, and in a client the whole exchange.
	readTimeout = 10 * time.Second
	// stopTimeout bounds how long a stop waits for requests that are being answered.
	stopTimeout = time.Second
	// maxSocketPath is the longest path of a unix socket, in bytes. Linux allows 107. While the
	// socket is created, its path is a little longer.
	maxSocketPath = 90
	// dirMode is the mode of a directory that has the socket.
	dirMode = 0o700
)

// errInUse is the error if another daemon listens on the socket of the data directory.
var errInUse = errors.New("another daemon uses this data directory; stop it, or choose another data_dir")

// SocketPath returns the path of the socket of a data directory. It is in the directory, or, if
// that path is too long for a socket, in a directory of the user in the system's temporary one.
func SocketPath(dataDir string) string {
	if path := filepath.Join(dataDir, "admin.sock"); len(path) <= maxSocketPath {
		return path
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("drover-%d-%x", os.Getuid(), sha256.Sum256([]byte(dataDir)))[:40], "admin.sock")
}

// Serve starts the admin server and the server of health checks, as configured. The returned
// function stops both: it waits at most a second for requests that are being answered, then closes
// their connections. If Serve returns an error, nothing is running.
func Serve(cfg Config, routes []Route) (stop func(), err error) {
	s := &servers{cfg: cfg}
	routes = allRoutes(cfg, routes)
	if cfg.Admin.Listen != "off" {
		secured, err := serverTLS(cfg.Admin)
		if err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
		l, err := listenAdmin(cfg)
		if err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
		s.startServer(l, secured, requireAuth(cfg.Admin, newMux(routes)))
		level := slog.LevelInfo
		if cfg.Admin.Listen == "unix" { // as without any setting
			level = slog.LevelDebug
		}
		cfg.Log.Log(context.Background(), level, "admin server listening", "address", l.Addr().String())
	}
	if cfg.Probes.Listen != "" {
		l, err := net.Listen("tcp", cfg.Probes.Listen)
		if err != nil {
			s.stopAll()
			return nil, fmt.Errorf("probes: %w; does another program use it?", err)
		}
		public := slices.DeleteFunc(routes, func(r Route) bool {
			return !r.Public && (r.Path != api.MetricsPath || !cfg.Probes.Metrics)
		})
		s.startServer(l, nil, newMux(public))
		cfg.Log.Info("health checks listening", "address", l.Addr().String())
	}
	return s.stopAll, nil
}

// servers are the servers of one call of Serve.
type servers struct {
	cfg     Config
	all     []*http.Server
	running sync.WaitGroup
}

// startServer serves a listener on a goroutine, with TLS unless secured is nil.
func (s *servers) startServer(l net.Listener, secured *tls.Config, handler http.Handler) {
	server := &http.Server{
		Handler: handler, TLSConfig: secured, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	s.all = append(s.all, server)
	s.running.Go(func() {
		run := server.Serve
		if secured != nil {
			run = func(l net.Listener) error { return server.ServeTLS(l, "", "") } // TLSConfig has the certificate
		}
		if err := run(l); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Log.Error("the admin or probes server has failed", "address", l.Addr().String(), "error", err)
		}
	})
}

func (s *servers) stopAll() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, server := range s.all {
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // closes the connections of requests that did not end
		}
	}
	s.running.Wait()
	if s.cfg.Admin.Listen == "unix" && len(s.all) > 0 {
		_ = os.Remove(SocketPath(s.cfg.DataDir)) // the next server replaces it in any case
	}
}

// listenAdmin opens the port, or the socket, which only the user may use.
func listenAdmin(cfg Config) (net.Listener, error) {
	if cfg.Admin.Listen != "unix" {
		l, err := net.Listen("tcp", cfg.Admin.Listen)
		if err != nil {
			return nil, fmt.Errorf("%w; does another program use it?", err)
		}
		return l, nil
	}
	path := SocketPath(cfg.DataDir)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("making the directory of its socket: %w", err)
	}
	if dir != cfg.DataDir {
		if err := checkOwner(dir); err != nil {
			return nil, err
		}
	}
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close() // only to check whether a server accepts it
		return nil, errInUse
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // left by a daemon that was killed
		return nil, fmt.Errorf("replacing an old socket: %w", err)
	}
	// The socket gets its mode in a directory that only the user can read, and is moved then.
	hidden, err := os.MkdirTemp(dir, ".admin")
	if err != nil {
		return nil, fmt.Errorf("making its socket: %w", err)
	}
	defer func() { _ = os.Remove(hidden) }() // it is empty by then
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(hidden, "s"), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(filepath.Join(hidden, "s"), 0o600), os.Rename(filepath.Join(hidden, "s"), path)); err != nil {
		return nil, errors.Join(fmt.Errorf("making its socket: %w", err), l.Close())
	}
	return l, nil
}

// checkOwner returns an error unless a directory in a public place belongs to this user and nobody
// else can use it.
func checkOwner(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("looking at %s: %w", dir, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() || info.Mode().Perm() != dirMode {
		return fmt.Errorf("%s is not a directory that only this user can access; remove it", dir)
	}
	return nil
}
