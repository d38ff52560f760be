package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs"
)

// This file is the servers that operators and commands talk to: health, metrics,
// and how things are.

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
	serve := func(l net.Listener, handler http.Handler) {
		s := &http.Server{
			Handler: handler, ReadHeaderTimeout: adminPatience, ReadTimeout: adminPatience,
			MaxHeaderBytes: adminHeader, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
		}
		servers = append(servers, s)
		running.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				d.log.Error("a server for operators has ended", "address", l.Addr().String(), "error", err)
			}
		})
	}
	if d.cfg.Admin.Listen != "off" {
		l, err := d.listenAdmin()
		if err != nil {
			return stop, fmt.Errorf("admin: %w", err)
		}
		serve(l, d.guarded(d.adminHandler()))
		d.log.Debug("the admin server listens", "address", l.Addr().String())
	}
	if d.cfg.Probes.Listen != "" {
		l, err := net.Listen("tcp", d.cfg.Probes.Listen)
		if err != nil {
			stop()
			return stop, fmt.Errorf("probes: %w; is another program there?", err)
		}
		mux := http.NewServeMux()
		d.handleHealth(mux)
		if d.cfg.Probes.Metrics {
			mux.Handle("GET /metrics", d.metricsHandler())
		}
		serve(l, mux)
		d.log.Info("health checks are served", "address", l.Addr().String())
	}
	return stop, nil
}

// listenAdmin opens the socket, which nobody but the user may use, or the port.
func (d *Daemon) listenAdmin() (net.Listener, error) {
	if d.cfg.Admin.Listen != "unix" {
		l, err := net.Listen("tcp", d.cfg.Admin.Listen)
		if err != nil {
			return nil, fmt.Errorf("%w; is another program there?", err)
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
		return fmt.Errorf("%s is not a directory of this user's alone; remove it", dir)
	}
	return nil
}

// guarded lets only those in who have the token, where there is one. A browser
// that was led here by a page of somebody else's names its origin, or a host that
// is not ours.
func (d *Daemon) guarded(next http.Handler) http.Handler {
	if d.cfg.Admin.Listen == "unix" {
		return next
	}
	want := sha256.Sum256([]byte("Bearer " + string(d.cfg.Admin.Token)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		switch {
		case r.Header.Get("Origin") != "" || !d.knownHost(r.Host):
			http.Error(w, "requests of browsers are not answered here", http.StatusForbidden)
		case subtle.ConstantTimeCompare(got[:], want[:]) != 1:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "this needs the admin token: Authorization: Bearer TOKEN", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// knownHost reports whether a request's Host is an address, localhost, or what the
// configuration calls this machine: not a name that somebody made point here.
func (d *Daemon) knownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	own, _, _ := net.SplitHostPort(d.cfg.Admin.Listen) // checked before
	return net.ParseIP(strings.Trim(host, "[]")) != nil || host == "localhost" || host == own && own != ""
}

func (d *Daemon) adminHandler() http.Handler {
	mux := http.NewServeMux()
	d.handleHealth(mux)
	mux.Handle("GET /metrics", d.metricsHandler())
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, d.statusReport(r.Context()))
	})
	mux.HandleFunc("GET /v1/scale", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, d.decisions.all())
	})
	mux.HandleFunc("POST /v1/functions/{name}/pause", d.answerPause)
	mux.HandleFunc("POST /v1/functions/{name}/resume", d.answerResume)
	mux.HandleFunc("POST "+reloadPath, d.answerReload)
	if d.cfg.Admin.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// Health is the answer of /healthz and /readyz.
type Health struct {
	Status string `json:"status"` // ok, or not ready
	// Reasons say why not.
	Reasons []string `json:"reasons,omitempty"`
}

func (d *Daemon) handleHealth(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, Health{Status: "ok"}) // who can say so lives
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reasons := d.notReady(); len(reasons) > 0 {
			answer(w, http.StatusServiceUnavailable, Health{"not ready", reasons})
			return
		}
		answer(w, http.StatusOK, Health{Status: "ok"})
	})
}

// phase is where a daemon is in its life.
type phase string

const (
	phaseStarting phase = "starting"
	phaseRunning  phase = "running"
	phaseStopping phase = "stopping"
)

func (d *Daemon) enter(p phase) { d.phase.Store(p) }

func (d *Daemon) inPhase() phase {
	if p, ok := d.phase.Load().(phase); ok {
		return p
	}
	return phaseStarting
}

// notReady says why the daemon takes no messages; nothing if it does.
func (d *Daemon) notReady() (reasons []string) {
	if p := d.inPhase(); p != phaseRunning {
		return []string{"it is " + string(p)}
	}
	for _, f := range d.Status() {
		if f.Stopped {
			reasons = append(reasons, "function "+f.Name+" has stopped: its code does not load")
		}
	}
	if r := d.reloadStatus(); r.misloaded {
		reasons = append(reasons, "the last reload was refused, since code does not load; what ran before runs on: "+r.Refused)
	}
	if count, ok := d.Instances(); ok && count.Ready == 0 && count.Failing != "" {
		reasons = append(reasons, count.Failing)
	}
	return reasons
}

func answer(w http.ResponseWriter, status int, what any) {
	text, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // who asked may be gone
}

func (d *Daemon) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newMetrics(d)...)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// StatusReport is the answer of /v1/status.
type StatusReport struct {
	Phase     string             `json:"phase"`
	Since     time.Time          `json:"since"`
	Instances *InstancesStatus   `json:"instances,omitempty"` // where there are several
	Reload    *ReloadStatus      `json:"reload,omitempty"`    // where one was asked for
	Functions []FunctionOverview `json:"functions"`
}

// InstancesStatus counts instances.
type InstancesStatus struct {
	Ready    int    `json:"ready"`
	Starting int    `json:"starting"`
	Draining int    `json:"draining"`
	Failing  string `json:"failing,omitempty"`
}

// FunctionOverview is a function's status, and what waits at its source.
type FunctionOverview struct {
	FunctionStatus
	// Backlog is negative where the source does not tell.
	Backlog int64
	// Oldest is the age of the oldest message that waits, in seconds; 0 if unknown.
	Oldest float64
}

// statusFresh and scrapeFresh are how old a backlog may be that is answered with.
const (
	statusFresh = 900 * time.Millisecond
	scrapeFresh = 10 * time.Second
)

func (d *Daemon) statusReport(ctx context.Context) StatusReport {
	r := StatusReport{Phase: string(d.inPhase()), Since: birth, Functions: []FunctionOverview{}}
	if c, ok := d.Instances(); ok {
		r.Instances = &InstancesStatus{c.Ready, c.Starting, c.Draining, c.Failing}
	}
	if reload := d.reloadStatus(); !reload.At.IsZero() {
		r.Reload = &reload
	}
	for _, s := range d.Status() {
		b := d.backlogs.of(ctx, d, s.Name, statusFresh)
		f := FunctionOverview{FunctionStatus: s, Backlog: b.ready}
		if !b.oldest.IsZero() {
			f.Oldest = max(time.Since(b.oldest).Seconds(), 0)
		}
		r.Functions = append(r.Functions, f)
	}
	return r
}

// backlogs remembers what sources said: a source is not asked by each who looks.
// The zero value has asked nobody.
type backlogs struct {
	mu   sync.Mutex
	last map[string]heard
}

type heard struct {
	at     time.Time
	ready  int64 // negative: it does not tell
	oldest time.Time
	more   *triggers.BacklogMore
}

func (b *backlogs) of(ctx context.Context, d *Daemon, function string, fresh time.Duration) heard {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h, found := b.last[function]; found && time.Since(h.at) < fresh {
		return h
	}
	ctx, cancel := context.WithTimeout(ctx, backlogLimit)
	defer cancel()
	h := heard{at: time.Now(), ready: -1}
	if got, err := d.Backlog(ctx, function); err == nil {
		h.ready, h.oldest, h.more = got.Ready, got.Oldest, got.More
	}
	if b.last == nil {
		b.last = make(map[string]heard)
	}
	b.last[function] = h
	return h
}
