package daemon

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
	"sync"
	"syscall"
	"time"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/triggers/natsjs"
)

// This file is the servers that operators and commands talk to: where they listen,
// and their lives. What they answer is in admin_routes.go.

const (
	// adminHeader bounds a request's header, in bytes; no request has a body.
	adminHeader = 16 << 10
	// adminPatience bounds the reading of a request, and adminGrace the end of
	// those under way at a stop.
	adminPatience = 10 * time.Second
	adminGrace    = time.Second
	// longestSocket is how long the path of a unix socket may be.
	longestSocket = 90 // of 107, less what is put behind while it is made
)

// adminSocket is where the admin server of a data directory listens: in it, or,
// where that path is too long for a socket, in a directory of the user's own.
func adminSocket(dataDir string) string {
	if path := filepath.Join(dataDir, "admin.sock"); len(path) <= longestSocket {
		return path
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("drover-%d-%x", os.Getuid(), sha256.Sum256([]byte(dataDir)))[:40], "admin.sock")
}

// serveAdmin starts the servers that the configuration asks for. The returned
// function stops them.
func (d *Daemon) serveAdmin() (stop func(), err error) {
	var servers []*http.Server
	var running sync.WaitGroup
	stop = func() {
		d.logs.CloseSubscribers()
		ctx, cancel := context.WithTimeout(context.Background(), adminGrace)
		defer cancel()
		for _, s := range servers {
			if s.Shutdown(ctx) != nil {
				_ = s.Close() // a request that does not end is cut
			}
		}
		running.Wait()
		if d.cfg.Admin.Listen == "unix" && len(servers) > 0 {
			_ = os.Remove(adminSocket(d.cfg.DataDir)) // the next one would replace it anyway
		}
	}
	serve := func(l net.Listener, secured *tls.Config, handler http.Handler) {
		s := &http.Server{
			Handler: handler, TLSConfig: secured, ReadHeaderTimeout: adminPatience, ReadTimeout: adminPatience,
			MaxHeaderBytes: adminHeader, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
		}
		servers = append(servers, s)
		running.Go(func() {
			run := s.Serve
			if secured != nil {
				run = func(l net.Listener) error { return s.ServeTLS(l, "", "") } // it has its certificate
			}
			if err := run(l); !errors.Is(err, http.ErrServerClosed) {
				d.log.Error("the admin or probes server has failed", "address", l.Addr().String(), "error", err)
			}
		})
	}
	if d.cfg.Admin.Listen != "off" {
		secured, err := adminTLS(d.cfg.Admin)
		if err != nil {
			return stop, fmt.Errorf("admin: %w", err)
		}
		l, err := d.listenAdmin()
		if err != nil {
			return stop, fmt.Errorf("admin: %w", err)
		}
		serve(l, secured, d.guarded(d.serveRoutes(func(route) bool { return true })))
		d.log.Debug("admin server listening", "address", l.Addr().String())
	}
	if d.cfg.Probes.Listen != "" {
		l, err := net.Listen("tcp", d.cfg.Probes.Listen)
		if err != nil {
			stop()
			return stop, fmt.Errorf("probes: %w; does another program use it?", err)
		}
		serve(l, nil, d.serveRoutes(func(r route) bool {
			return r.open || r.path == api.MetricsPath && d.cfg.Probes.Metrics
		}))
		d.log.Info("health checks listening", "address", l.Addr().String())
	}
	return stop, nil
}

// listenAdmin opens the socket, which nobody but the user may use, or the port.
func (d *Daemon) listenAdmin() (net.Listener, error) {
	if d.cfg.Admin.Listen != "unix" {
		l, err := net.Listen("tcp", d.cfg.Admin.Listen)
		if err != nil {
			return nil, fmt.Errorf("%w; does another program use it?", err)
		}
		return l, nil
	}
	path := adminSocket(d.cfg.DataDir)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dataDirMode); err != nil {
		return nil, fmt.Errorf("making the directory of its socket: %w", err)
	}
	if dir != d.cfg.DataDir {
		if err := ours(dir); err != nil {
			return nil, err
		}
	}
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close() // it was only a knock
		return nil, natsjs.ErrLocked
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // one that was killed left it
		return nil, fmt.Errorf("replacing an old socket: %w", err)
	}
	// It is made where nobody else can look, and only then put in its place.
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

// ours returns an error unless a directory in a public place is the user's alone.
func ours(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("looking at %s: %w", dir, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() || info.Mode().Perm() != dataDirMode {
		return fmt.Errorf("%s is not a directory that only this user can access; remove it", dir)
	}
	return nil
}
