// Package natsjs is the trigger for NATS JetStream: durable pull consumers of a
// cluster, or of a server embedded in this process.
//
// An Embedded server or a Connection is opened once and outlives the triggers on
// it. Open returns a trigger; see package triggers for who calls what.
package natsjs

import (
	"context"
	"crypto/rand"
	"encoding/base64"
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
	"github.com/nats-io/nats.go"
)

// ErrLocked says that another daemon uses the data directory.
var ErrLocked = errors.New("another daemon uses this data directory; stop it, or choose another data_dir")

// maxPayload is the largest message that the embedded server takes, in bytes:
// NATS advises against more than 8 MiB.
const maxPayload = 8 << 20

const startLimit = 30 * time.Second

// EmbeddedConfig is how the embedded server runs.
type EmbeddedConfig struct {
	// Dir is made if it is missing, readable by its owner only, and locked.
	Dir string
	// Listen is where other programs on the machine reach the server, with the
	// token in Dir/token; port 0 picks a free one; "off" is for nobody.
	Listen string
	// Sync is how often the store is synced to disk; 0 is after each write.
	Sync time.Duration
	// MaxStore is the most bytes that the store may hold; 0 is three quarters
	// of the free disk.
	MaxStore int64
	Log      *slog.Logger
}

// Embedded is a NATS server in this process, with JetStream on files.
type Embedded struct {
	server atomic.Pointer[server.Server] // another one after a restart
	cfg    EmbeddedConfig
	port   int // that it listened on first, and does after a restart
	lock   *flock.Flock
	dir    string
	token  string
	log    *slog.Logger

	failure atomic.Pointer[storeFailure]
	ctx     context.Context // ends with Close
	end     context.CancelFunc
	mending sync.WaitGroup // the restarts after a failure
}

// client is the contents of Dir/client.json, for other programs of the same user.
type client struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// StartEmbedded starts a server over a directory. The error wraps ErrLocked when
// another process has it.
func StartEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) {
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
	e := &Embedded{lock: lock, dir: cfg.Dir, log: cfg.Log, cfg: cfg}
	e.ctx, e.end = context.WithCancel(context.Background())
	if e.token, err = keptToken(filepath.Join(cfg.Dir, "token")); err == nil {
		err = e.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, e.Close(context.WithoutCancel(ctx)))
	}
	return e, nil
}

// start starts a server, at first or in place of one whose store failed.
func (e *Embedded) start(ctx context.Context) error {
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
		options.Port = e.port // others know it
	}
	s, err := server.NewServer(options)
	if err != nil {
		return fmt.Errorf("making the embedded NATS server: %w", err)
	}
	s.SetLoggerV2(&serverLog{cfg.Log, e.writeFailed}, false, false, false)
	s.Start()
	ready := s.ReadyForConnections(startLimit)
	// Not sooner: connections within the process need no listener, and would find no
	// stream while the store is read, and make it anew.
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
		return fmt.Errorf("listen: the port %q is no number", port)
	}
	if options.Port == 0 {
		options.Port = server.RANDOM_PORT
	}
	options.Host = host
	return nil
}

const clientFile = "client.json"

// ReadClient reads how other programs of the same user reach the server over
// dir. The error wraps fs.ErrNotExist where none runs, or none listens.
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

// keptToken reads the token that the file keeps, or makes one.
func keptToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(text))) >= 32 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the embedded server's token: %w", err)
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", fmt.Errorf("making a token: %w", err)
	}
	token := base64.RawURLEncoding.EncodeToString(secret)
	return token, writeOwn(path, []byte(token+"\n"))
}

// writeOwn replaces a file, which only its owner may read.
func writeOwn(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// ClientURL is where other programs reach the server; empty if nowhere.
func (e *Embedded) ClientURL() string {
	s := e.server.Load()
	if s.Addr() == nil {
		return ""
	}
	return s.ClientURL()
}

// Connect opens a connection within the process: it crosses no socket.
func (e *Embedded) Connect(ctx context.Context) (*Connection, error) {
	c, err := dial(ctx, "embedded", e.log, nil, "the embedded server",
		nats.InProcessServer(inProcess{e}), nats.Token(e.token))
	if err == nil {
		c.embedded = true
	}
	return c, err
}

// Close stops the server, when all connections are done with, and unlocks the
// directory.
func (e *Embedded) Close(context.Context) error {
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

// serverLog is the server's log as ours. Its notices are about itself: debug.
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
