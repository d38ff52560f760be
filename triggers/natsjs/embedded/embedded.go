// Package embedded is a NATS server in this process, with JetStream on files. It is started
// once, and closed after all connections to it.
package embedded

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
)

// ErrLocked is returned if another daemon uses the data directory.
var ErrLocked = errors.New("another daemon uses this data directory; stop it, or choose another data_dir")

// maxPayload is the largest message that the server accepts, in bytes: NATS advises against
// more than 8 MiB.
const maxPayload = 8 << 20

// startLimit bounds the start, which reads the store.
const startLimit = 30 * time.Second

// Config configures a Server.
type Config struct {
	// Dir is created if it is missing, readable by its owner only, and locked.
	Dir string
	// Listen is the address for other programs on the machine. They need the token in Dir/token.
	// Port 0 selects a free port; "off" disables the listener.
	Listen string
	// Sync is how often the store is synced to disk; 0 is after each write.
	Sync time.Duration
	// MaxStore bounds the bytes of the store; 0 is three quarters of the free disk.
	MaxStore int64
	Log      *slog.Logger
}

// Server is an embedded NATS server. It is safe for concurrent use.
type Server struct {
	server atomic.Pointer[server.Server] // replaced by a restart
	cfg    Config
	port   int // of the first start, kept after a restart
	lock   *flock.Flock
	dir    string
	token  string
	log    *slog.Logger

	failure atomic.Pointer[storeFailure]
	ctx     context.Context // ends with Close
	end     context.CancelFunc
	mending sync.WaitGroup // restarts after a failure
}

// client is the contents of Dir/client.json, for other programs of the same user.
type client struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// Start starts a server over a directory. The error wraps ErrLocked if another process uses
// the directory.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the embedded server's directory: %w", err)
	}
	lock := flock.New(filepath.Join(cfg.Dir, "lock"))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", cfg.Dir, err)
	}
	if !locked {
		return nil, fmt.Errorf("%s: %w", cfg.Dir, ErrLocked)
	}
	e := &Server{lock: lock, dir: cfg.Dir, log: cfg.Log, cfg: cfg}
	e.ctx, e.end = context.WithCancel(context.Background())
	if e.token, err = keptToken(filepath.Join(cfg.Dir, "token")); err == nil {
		err = e.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, e.Close(context.WithoutCancel(ctx)))
	}
	return e, nil
}

// start starts the server, or restarts it after its store failed.
func (e *Server) start(ctx context.Context) error {
	cfg := e.cfg
	options := &server.Options{
		ServerName:            "drover",
		JetStream:             true,
		StoreDir:              cfg.Dir,
		JetStreamMaxStore:     cfg.MaxStore,
		SyncInterval:          cfg.Sync,
		SyncAlways:            cfg.Sync == 0,
		MaxPayload:            maxPayload,
		Authorization:         e.token,
		NoSigs:                true,
		NoSystemAccount:       false,
		DisableShortFirstPing: true,
	}
	if err := listenOn(options, cfg.Listen); err != nil {
		return err
	}
	if e.port > 0 {
		options.Port = e.port // other programs use it
	}
	if err := checkPort(ctx, options); err != nil {
		return err
	}
	s, err := server.NewServer(options)
	if err != nil {
		return fmt.Errorf("making the embedded NATS server: %w", err)
	}
	s.SetLoggerV2(&serverLog{cfg.Log, e.writeFailed}, false, false, false)
	s.Start()
	ready := s.ReadyForConnections(startLimit)
	// Stored only now: connections within the process need no listener. If they connected while
	// the store is read, they would find no stream, and create it again.
	e.server.Store(s)
	if !ready {
		return fmt.Errorf("the embedded NATS server did not start within %v; does its log say why?", startLimit)
	}
	if !s.JetStreamEnabled() {
		return fmt.Errorf("the embedded NATS server has no JetStream: it cannot use %s", cfg.Dir)
	}
	if options.DontListen {
		return ctx.Err()
	}
	if at, ok := s.Addr().(*net.TCPAddr); ok {
		e.port = at.Port
	}
	text, err := json.Marshal(client{s.ClientURL(), e.token})
	if err != nil {
		return fmt.Errorf("describing the embedded server: %w", err)
	}
	if err := writeOwn(filepath.Join(cfg.Dir, clientFile), text); err != nil {
		return err
	}
	return ctx.Err()
}

func listenOn(options *server.Options, listen string) error {
	if listen == "off" {
		options.DontListen = true
		return nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("listen: %w; write HOST:PORT, or off", err)
	}
	if options.Port, err = strconv.Atoi(port); err != nil {
		return fmt.Errorf("listen: the port %q is not a number", port)
	}
	if options.Port == 0 {
		options.Port = server.RANDOM_PORT
	}
	options.Host = host
	return nil
}

// checkPort returns an error at once if the port is taken. The server itself would only log that.
func checkPort(ctx context.Context, options *server.Options) error {
	if options.DontListen || options.Port == server.RANDOM_PORT {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(options.Host, strconv.Itoa(options.Port)))
	if err != nil {
		return fmt.Errorf("the embedded NATS server: %w; does another program use it?", err)
	}
	return l.Close()
}

const clientFile = "client.json"

// ReadClient returns the address and token of the server over dir, for other programs of the
// same user. The error wraps fs.ErrNotExist if none runs, or it does not listen.
func ReadClient(dir string) (url, token string, err error) {
	text, err := os.ReadFile(filepath.Join(dir, clientFile))
	if err != nil {
		return "", "", fmt.Errorf("finding the running daemon: %w", err)
	}
	var c client
	if err := json.Unmarshal(text, &c); err != nil {
		return "", "", fmt.Errorf("reading %s: %w", filepath.Join(dir, clientFile), err)
	}
	return c.URL, c.Token, nil
}

// keptToken reads the token from a file, or creates both.
func keptToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(text))) >= 32 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the embedded server's token: %w", err)
	}
	// A token of letters and digits can follow any flag of a command: none begins with a dash.
	token := rand.Text() + rand.Text()
	return token, writeOwn(path, []byte(token+"\n"))
}

// writeOwn replaces a file with one that only its owner may read.
func writeOwn(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// ClientURL returns the address for other programs; empty if the server does not listen.
func (e *Server) ClientURL() string {
	s := e.server.Load()
	if s.Addr() == nil {
		return ""
	}
	return s.ClientURL()
}

// InProcessConn implements nats.InProcessConnProvider.
func (e *Server) InProcessConn() (net.Conn, error) {
	s := e.server.Load()
	if !s.Running() || !s.JetStreamEnabled() {
		return nil, errors.New("the embedded server is being restarted")
	}
	return s.InProcessConn()
}

// Token authorizes connections to the server.
func (e *Server) Token() string { return e.token }

// Close stops the server and unlocks the directory. Callers close their connections first.
func (e *Server) Close(context.Context) error {
	var errs []error
	e.end()
	e.mending.Wait()
	if s := e.server.Load(); s != nil {
		if err := os.Remove(filepath.Join(e.dir, clientFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		stopConsumerStores(s)
		s.Shutdown()
		s.WaitForShutdown()
	}
	return errors.Join(append(errs, e.lock.Unlock())...)
}

// serverLog writes the server's log to a logger. Its notices are debug messages.
type serverLog struct {
	log         *slog.Logger
	writeFailed func(text string)
}

func (l *serverLog) say(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "nats server: "+fmt.Sprintf(format, args...))
	}
}

func (l *serverLog) Noticef(format string, args ...any) { l.say(slog.LevelDebug, format, args) }
func (l *serverLog) Warnf(format string, args ...any) {
	level := slog.LevelWarn
	if strings.HasPrefix(fmt.Sprintf(format, args...), "Invalid JetStream request") {
		level = slog.LevelDebug // checkRights sends such requests
	}
	l.say(level, format, args)
}
func (l *serverLog) Errorf(format string, args ...any) {
	l.say(slog.LevelError, format, args)
	if text := fmt.Sprintf(format, args...); failsStore(text) {
		l.writeFailed(text)
	}
}

func (l *serverLog) Fatalf(format string, args ...any) { l.say(slog.LevelError, format, args) }
func (l *serverLog) Debugf(format string, args ...any) { l.say(slog.LevelDebug, format, args) }
func (l *serverLog) Tracef(format string, args ...any) { l.say(slog.LevelDebug, format, args) }
