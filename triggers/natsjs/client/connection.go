// Package client connects to a NATS cluster, or to a server in this process, for all that receives,
// sends or reads there. It reports the rights that the account lacks. The opener of a Connection closes
// it, after all that use it are closed.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/dialer"
)

const (
	// connectLimit bounds the first connection; later outages have no limit.
	connectLimit = 10 * time.Second
	// confirmLimit bounds the wait for the server to confirm a message.
	confirmLimit = 10 * time.Second
	// reconnectBuffer bounds the data queued while the server is down, mostly acknowledgements:
	// 64 MiB hold about a million.
	reconnectBuffer = 64 << 20
)

// Config configures a connection to a cluster. At most one of Credentials, NKey,
// Token and User is set.
type Config struct {
	Name        string
	URLs        []string
	Credentials string // the contents of a .creds file
	NKey        string // a seed
	Token       string
	User        string
	Password    string

	CA, Cert, Key string // PEM
	ServerName    string
	Log           *slog.Logger
}

// Connection is shared by its triggers and senders. It reconnects until it is closed; State
// returns its state. Any goroutine may call its methods.
type Connection struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	log      *slog.Logger
	embedded bool
	closed   chan struct{}

	mu          sync.Mutex
	reconnected map[*func()]struct{} // called after a reconnect
	rights      rights
	lastError   string
	down        time.Time // when the connection was lost; zero: it is up
}

// Connect opens a connection. If no server can be reached, or the server refuses the
// credentials, Connect returns an error within ten seconds.
func Connect(ctx context.Context, cfg Config) (*Connection, error) {
	options, err := authOptions(cfg)
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", cfg.Name, err)
	}
	tlsConfig, err := tlsOptions(cfg)
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", cfg.Name, err)
	}
	if tlsConfig != nil {
		options = append(options, nats.Secure(tlsConfig))
	}
	return dial(ctx, cfg.Name, cfg.Log, cfg.URLs, redacted(cfg.URLs), options...)
}

// InProcess is a NATS server in this process, such as an embedded.Server.
type InProcess interface {
	nats.InProcessConnProvider
	// Token authorizes connections to it.
	Token() string
}

// ConnectInProcess opens a connection to a server in this process. It uses no socket.
func ConnectInProcess(ctx context.Context, server InProcess, log *slog.Logger) (*Connection, error) {
	c, err := dial(ctx, "embedded", log, nil, "the embedded server", nats.InProcessServer(server), nats.Token(server.Token()))
	if err == nil {
		c.embedded = true
	}
	return c, err
}

// redacted returns the servers' addresses without secrets.
func redacted(urls []string) string {
	var out []string
	for _, u := range urls {
		if parsed, err := url.Parse(u); err == nil {
			u = parsed.Redacted()
		}
		out = append(out, u)
	}
	return strings.Join(out, ", ")
}

func authOptions(cfg Config) ([]nats.Option, error) {
	switch {
	case cfg.Credentials != "":
		if _, err := nkeys.ParseDecoratedUserNKey([]byte(cfg.Credentials)); err != nil {
			return nil, errors.New("credentials has no user's seed; it takes the contents of a .creds file, as in credentials: file:/etc/drover/user.creds")
		}
		return []nats.Option{nats.UserCredentialBytes([]byte(cfg.Credentials))}, nil
	case cfg.NKey != "":
		pair, err := nkeys.FromSeed([]byte(strings.TrimSpace(cfg.NKey)))
		if err != nil {
			return nil, fmt.Errorf("nkey is not a seed (SU...): %w", err)
		}
		public, err := pair.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("nkey: %w", err)
		}
		return []nats.Option{nats.Nkey(public, pair.Sign)}, nil
	case cfg.Token != "":
		return []nats.Option{nats.Token(cfg.Token)}, nil
	case cfg.User != "":
		return []nats.Option{nats.UserInfo(cfg.User, cfg.Password)}, nil
	}
	return nil, nil
}

func tlsOptions(cfg Config) (*tls.Config, error) {
	if cfg.CA == "" && cfg.Cert == "" && cfg.Key == "" && cfg.ServerName == "" {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName}
	if cfg.CA != "" {
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM([]byte(cfg.CA)) {
			return nil, errors.New("tls.ca has no PEM certificate")
		}
	}
	if cfg.Cert != "" || cfg.Key != "" {
		pair, err := tls.X509KeyPair([]byte(cfg.Cert), []byte(cfg.Key))
		if err != nil {
			return nil, fmt.Errorf("tls.cert and tls.key: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

func dial(ctx context.Context, name string, log *slog.Logger, urls []string, where string, options ...nats.Option) (*Connection, error) {
	c := &Connection{
		log:         log.With("connection", name),
		reconnected: make(map[*func()]struct{}),
		closed:      make(chan struct{}),
	}
	limit := connectLimit
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	by := dialer.New(ctx, limit)
	options = append(options,
		nats.SetCustomDialer(by), nats.SkipHostLookup(), // the dialer resolves names
		nats.Name("drover "+name),
		nats.Timeout(limit),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(false),
		// A server that revokes rights may grant them again.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250*time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 500*time.Millisecond),
		nats.ReconnectBufSize(reconnectBuffer),
		nats.PingInterval(20*time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			c.lost()
			if err != nil {
				c.note(err)
				c.log.Warn("connection lost; will try until it is back", "servers", where, "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			c.log.Info("connected again", "server", nc.ConnectedUrlRedacted())
			c.notifyReconnected()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.note(err)
			if denied := deniedIn(err); denied != nil {
				c.deny(denied)
				return
			}
			c.log.Warn("nats", "error", err)
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	)
	nc, err := nats.Connect(strings.Join(urls, ","), options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w%s", where, err, hint(err))
	}
	by.Started()
	c.nc = nc
	if c.js, err = jetstream.New(nc, jetstream.WithPublishAsyncTimeout(confirmLimit)); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to %s: %w", where, err), c.Close())
	}
	return c, nil
}

// hint returns advice on how to fix an error of the first connection.
func hint(err error) string {
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return "; check the connection's credentials, nkey, token, or user and password"
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout):
		return "; is the server there, and does the URL name it?"
	}
	return ""
}

func (c *Connection) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastError = err.Error()
}

// lost records the time at which the connection was lost.
func (c *Connection) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down.IsZero() {
		c.down = time.Now()
	}
}

// Link returns since when the connection is down, and how often it was reconnected.
func (c *Connection) Link() triggers.Link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return triggers.Link{Down: c.down, Reconnects: int64(c.nc.Stats().Reconnects)}
}

func (c *Connection) notifyReconnected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastError, c.down, c.rights.missing = "", time.Time{}, nil // the rights may have changed
	for notify := range c.reconnected {
		(*notify)()
	}
}

// OnReconnect has notify called after each reconnect, until remove is called. notify must not
// block.
func (c *Connection) OnReconnect(notify func()) (remove func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reconnected[&notify] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.reconnected, &notify)
	}
}

// State is "connected", "reconnecting: ERROR" or "closed".
func (c *Connection) State() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.nc.IsClosed():
		return "closed"
	case c.nc.IsConnected():
		return "connected"
	case c.lastError == "":
		return "reconnecting"
	}
	return "reconnecting: " + c.lastError
}

// Conn returns the NATS connection, for programs that publish on it.
func (c *Connection) Conn() *nats.Conn { return c.nc }

// JetStream returns the JetStream API of the connection.
func (c *Connection) JetStream() jetstream.JetStream { return c.js }

// IsEmbedded reports whether the server is in this process.
func (c *Connection) IsEmbedded() bool { return c.embedded }

// Close closes the connection, after its triggers are closed, and waits for its goroutines.
func (c *Connection) Close() error {
	c.nc.Close()
	<-c.closed
	return nil
}
