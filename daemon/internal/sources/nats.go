package sources

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease/record"
	"github.com/drover-run/drover/triggers/natsjs"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
	"github.com/drover-run/drover/triggers/natsjs/deadletters"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
	"github.com/drover-run/drover/triggers/natsjs/timerstore"
	"github.com/drover-run/drover/triggers/timer"
)

const (
	// lockWait is how long a start waits for a store that another process has locked. A command,
	// such as drover send, locks it for a moment.
	lockWait = 5 * time.Second
	// lockRetry is the time between two attempts.
	lockRetry = lockWait / 100
	// natsSystem is the name in traces; the conventions define none.
	natsSystem = "nats"
)

// ErrLocked is the error of a data directory that another daemon uses.
var ErrLocked = embedded.ErrLocked

// ErrNoStream is the error of a message to a subject that belongs to no stream.
var ErrNoStream = client.ErrNoStream

// Connection is an open connection, which a program may give to a daemon.
type Connection = client.Connection

// streams is NATS JetStream. The functions of a Set share one connection to each cluster, and
// the embedded servers.
type streams struct{}

func (streams) sourceOf(t configs.Trigger) source {
	if t.NATS == nil {
		return nil
	}
	return natsSource{t.NATS}
}

func (streams) outputOf(o configs.Output) output {
	if o.NATS == nil {
		return nil
	}
	return natsOutput{o.NATS}
}

func (streams) connectionOf(c Config, name string) connection {
	if len(c.Settings.Connections[name].NATS) == 0 {
		return nil
	}
	return natsConnection{c, name}
}

// natsSource is the consumer of a function.
type natsSource struct{ *configs.NATSTrigger }

func (n natsSource) messageTraits() Traits {
	t := Traits{
		Entity:     dispatch.Entity{System: natsSystem, Name: n.Subject, BySubject: true},
		Target:     Target{Connection: n.Connection, Address: n.Subject},
		KeyedOrder: n.OrderingToken > 0,
	}
	subjects := "the subjects " + n.Subject
	if n.Subject == "" {
		t.Entity.Name, subjects = n.Stream, "all subjects of its stream"
	}
	t.CannotSend = "consumes " + subjects + "; send to one subject that it matches"
	if strings.ContainsAny(t.Entity.Name, "*>") {
		t.Entity.Attributes = append(t.Entity.Attributes, semconv.MessagingDestinationTemplate(t.Entity.Name))
	}
	t.Entity.Attributes = append(t.Entity.Attributes, semconv.MessagingConsumerGroupName(n.Consumer))
	if strings.ContainsAny(n.Subject, "*>") {
		t.Target.Address = ""
		t.AcceptsAddress = func(subject string) bool {
			// A message to a subject that begins with $ would be a request to the server.
			return server.IsValidLiteralSubject(subject) && !strings.HasPrefix(subject, "$") && server.SubjectsCollide(subject, n.Subject)
		}
	}
	if n.Create != nil && !*n.Create {
		t.Requirement = fmt.Sprintf("moves rejected messages to the stream %s, which must exist: %s", n.DeadLetters, deadletters.CreateCommand(n.DeadLetters, 1))
	}
	return t
}

func (n natsSource) openTrigger(ctx context.Context, s *Set, t TriggerConfig) (triggers.Trigger, error) {
	c, err := natsConnection{s.Config, n.Connection}.openShared(ctx, s)
	if err != nil {
		return nil, err
	}
	return n.openConsumer(ctx, c, shareRecord(s, t), t)
}

func (n natsSource) openConsumer(ctx context.Context, c *client.Connection, r *record.Record, t TriggerConfig) (triggers.Trigger, error) {
	return natsjs.Open(ctx, c, natsjs.Config{
		Config: consumers.Config{
			Stream:        n.Stream,
			Subject:       n.Subject,
			Consumer:      n.Consumer,
			Create:        *n.Create,
			AckWait:       n.AckWait.D(),
			OrderingToken: n.OrderingToken,
			MaxAttempts:   t.Settings.Retry.MaxAttempts,
		},
		DeadLetters: n.DeadLetters,
		Prefetch:    int(t.Settings.Prefetch),
		Function:    t.Function,
		Together:    t.Settings.Batch.Size,
		Memory:      t.Memory,
		Record:      r,
		Log:         t.Log,
	})
}

func (n natsSource) openPeeker(ctx context.Context, c Config) (triggers.Peeker, func() error, error) {
	from := natsConnection{c, n.Connection}
	if from.isUnused() {
		return emptyPeeker{}, func() error { return nil }, nil
	}
	to, _, done, err := from.connectOrStart(ctx)
	if err != nil {
		return nil, nil, err
	}
	p, err := consumers.OpenPeeker(ctx, to.JetStream(), consumers.Config{Stream: n.Stream, Consumer: n.Consumer, Subject: n.Subject, OrderingToken: n.OrderingToken})
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return p, done, nil
}

func (n natsSource) openDeadLetters(ctx context.Context, c Config, shared bool) (triggers.DeadLetters, func() error, error) {
	from := natsConnection{c, n.Connection}
	if from.isUnused() {
		return emptyDeadLetters{}, func() error { return nil }, nil
	}
	to, _, done, err := from.connectOrStart(ctx)
	if err != nil {
		return nil, nil, err
	}
	d, err := deadletters.Open(ctx, to.JetStream(), deadletters.Config{Stream: n.Stream, DeadLetters: n.DeadLetters, OrderingToken: n.OrderingToken, Shared: shared})
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return d, done, nil
}

// natsOutput is a subject that results are sent to.
type natsOutput struct{ *configs.NATSOutput }

func (n natsOutput) openOutput(ctx context.Context, s *Set) (dispatch.OutputConfig, error) {
	c, err := natsConnection{s.Config, n.Connection}.openShared(ctx, s)
	if err != nil {
		return dispatch.OutputConfig{}, err
	}
	return dispatch.OutputConfig{
		Open:   newSender(c),
		Entity: dispatch.Entity{System: natsSystem, Name: n.Subject}, Subject: n.Subject, Lanes: 1,
	}, nil
}

// natsConnection is a connection to a cluster or to an embedded server.
type natsConnection struct {
	Config
	name string
}

func (n natsConnection) shareConnection(ctx context.Context, s *Set) error {
	_, err := n.openShared(ctx, s)
	return err
}

// openShared returns the connection in a Set, and opens it if it is not open.
func (n natsConnection) openShared(ctx context.Context, s *Set) (*client.Connection, error) {
	shared, err := shareResource(s, n.name, s.canReuse(n.name), func() (*sharedConnection, error) { return n.openConnection(ctx) })
	if err != nil {
		return nil, err
	}
	return shared.Connection, nil
}

// openConnection connects, and starts the server if it is embedded here.
func (n natsConnection) openConnection(ctx context.Context) (*sharedConnection, error) {
	if !n.connectionSettings().Embedded() {
		c, err := client.Connect(ctx, n.clientConfig())
		return &sharedConnection{Connection: c}, err
	}
	if n.Parent != "" {
		c, err := connectLocal(ctx, embeddedDir(n.Parent, n.name), client.Config{Name: n.name, Log: n.Log})
		return &sharedConnection{Connection: c}, err
	}
	server, c, err := n.startServer(ctx)
	for deadline := time.Now().Add(lockWait); errors.Is(err, ErrLocked) && time.Now().Before(deadline) && ctx.Err() == nil; {
		waitFor(ctx, lockRetry)
		server, c, err = n.startServer(ctx)
	}
	if err != nil {
		return nil, err
	}
	n.Stores.Add(n.name, server)
	if url := server.ClientURL(); url != "" {
		n.Log.Info("embedded NATS server listening", "connection", n.name, "url", url, "token_in", filepath.Join(n.serverDir(), "token"))
	}
	return &sharedConnection{Connection: c, server: server, closed: func() { n.Stores.Remove(n.name) }}, nil
}

// waitFor waits for d, or until ctx ends.
func waitFor(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (n natsConnection) connectionSettings() configs.Connection {
	return n.Settings.Connections[n.name]
}

// serverDir returns the directory of the embedded server's data.
func (n natsConnection) serverDir() string { return embeddedDir(n.Settings.DataDir, n.name) }

func embeddedDir(dataDir, connection string) string {
	return filepath.Join(dataDir, "nats-"+connection)
}

// connectLocal connects to the embedded server of a running daemon, which wrote its address and
// its token to its directory.
func connectLocal(ctx context.Context, dir string, c client.Config) (*client.Connection, error) {
	url, token, err := embedded.ReadClient(dir)
	if err != nil {
		return nil, err
	}
	c.URLs, c.Token = []string{url}, token
	return client.Connect(ctx, c)
}

// startServer starts the embedded server. The error wraps ErrLocked if another process has its
// store.
func (n natsConnection) startServer(ctx context.Context) (*embedded.Server, *client.Connection, error) {
	settings := n.connectionSettings()
	server, err := embedded.Start(ctx, embedded.Config{
		Dir: n.serverDir(), Listen: settings.Listen, Sync: settings.Sync.D(), MaxStore: int64(settings.MaxStore), Log: n.Log,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connection %s: %w", n.name, err)
	}
	c, err := client.ConnectInProcess(ctx, server, n.Log)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("connection %s: %w", n.name, err), server.Close(ctx))
	}
	return server, c, nil
}

func (n natsConnection) clientConfig() client.Config {
	c := n.connectionSettings()
	out := client.Config{
		Name: n.name, URLs: c.NATS, Log: n.Log,
		Credentials: string(c.Credentials), NKey: string(c.NKey), Token: string(c.Token),
		User: c.User, Password: string(c.Password),
	}
	if c.TLS != nil {
		out.CA, out.Cert, out.Key, out.ServerName = c.TLS.CA, c.TLS.Cert, string(c.TLS.Key), c.TLS.ServerName
	}
	return out
}

// isUnused reports whether an embedded server has no data. A command that reads must not create
// any.
func (n natsConnection) isUnused() bool {
	if !n.connectionSettings().Embedded() {
		return false
	}
	_, err := os.Stat(n.serverDir())
	return errors.Is(err, fs.ErrNotExist)
}

// connectOrStart connects for a command. It reaches an embedded server by the listener of the
// running daemon. If no daemon runs, it starts the server, which runs until done is called, and
// started is set.
func (n natsConnection) connectOrStart(ctx context.Context) (c *client.Connection, started bool, done func() error, err error) {
	if !n.connectionSettings().Embedded() {
		c, err := client.Connect(ctx, n.clientConfig())
		if err != nil {
			return nil, false, nil, err
		}
		return c, false, c.Close, nil
	}
	c, localErr := connectLocal(ctx, n.serverDir(), client.Config{Name: "drover command", Log: n.Log})
	if localErr == nil {
		return c, false, c.Close, nil
	}
	// A daemon that was killed leaves its address file.
	server, c, err := n.startServer(ctx)
	if errors.Is(err, ErrLocked) {
		return nil, false, nil, fmt.Errorf("a daemon uses %s and does not answer (is its connection set to `listen: off`?): %w", n.Settings.DataDir, localErr)
	}
	if err != nil {
		return nil, false, nil, err
	}
	own := &sharedConnection{Connection: c, server: server}
	return c, true, own.Close, nil
}

func (natsConnection) acceptedParts() Accepts {
	return Accepts{Name: "NATS", Headers: true, Sessions: true, Property: func(name string) bool {
		return triggers.Header(name) != "" || name == triggers.ScheduledAt
	}}
}

// openSender opens a sender to a subject. If no daemon runs, it creates the consumer that the
// function would create, so that the server keeps the messages for the function.
func (n natsConnection) openSender(ctx context.Context, to Target, _ SendOptions) (dispatch.Sender, func() error, error) {
	c, started, done, err := n.connectOrStart(ctx)
	if err != nil {
		return nil, nil, err
	}
	if started && to.Function != "" {
		settings := n.Settings.Functions[to.Function]
		trigger, err := natsSource{settings.Trigger.NATS}.openConsumer(ctx, c, nil, TriggerConfig{Function: to.Function, Settings: settings, Log: n.Log})
		if err == nil {
			err = trigger.Close(ctx)
		}
		if err != nil {
			return nil, nil, errors.Join(err, done())
		}
	}
	return c.NewSender(), done, nil
}

func (n natsConnection) shareSender(ctx context.Context, s *Set, _ Target) (dispatch.OpenSender, error) {
	c, err := n.openShared(ctx, s)
	if err != nil {
		return nil, err
	}
	return newSender(c), nil
}

func newSender(c *client.Connection) dispatch.OpenSender {
	return func(context.Context) (dispatch.Sender, func() error, error) {
		return c.NewSender(), func() error { return nil }, nil
	}
}

// openTimerStore implements timerKeeper.
func (n natsConnection) openTimerStore(ctx context.Context, s *Set, settings *configs.TimerTrigger, t TriggerConfig) (timer.Store, error) {
	c, err := n.openShared(ctx, s)
	if err != nil {
		return nil, err
	}
	return timerstore.New(c.Conn(), timerstore.Config{Group: settings.Group, Name: t.Function, Term: settings.Lease.D()})
}

// sharedConnection is a connection in a Set, and its server if it is embedded here.
type sharedConnection struct {
	*client.Connection
	server *embedded.Server
	given  bool   // the program closes it
	closed func() // called before it closes; may be nil
}

// Close implements resource.
func (c *sharedConnection) Close() error {
	if c.given {
		return nil
	}
	if c.closed != nil {
		c.closed()
	}
	err := c.Connection.Close()
	if c.server != nil {
		err = errors.Join(err, c.server.Close(context.Background()))
	}
	return err
}

// shareGiven adds the connections that a program opened to a Set.
func shareGiven(s *Set, given map[string]*Connection) {
	for name, c := range given {
		s.addResource(name, &sharedConnection{Connection: c, given: true})
	}
}

// emptyPeeker is the peeker of a source that was never used.
type emptyPeeker struct{}

// Peek implements triggers.Peeker.
func (emptyPeeker) Peek(context.Context, int) ([]triggers.Message, error) { return nil, nil }

// Close implements triggers.Peeker.
func (emptyPeeker) Close(context.Context) error { return nil }

// emptyDeadLetters are the dead letters of a source that was never used.
type emptyDeadLetters struct{ triggers.DeadLetters }

// Browse implements triggers.DeadLetters.
func (emptyDeadLetters) Browse(context.Context, int) ([]triggers.DeadLetter, error) { return nil, nil }

// Close implements triggers.DeadLetters.
func (emptyDeadLetters) Close(context.Context) error { return nil }

// Server is an embedded server for a demo, with a connection to it.
type Server struct {
	*sharedConnection
	streams jetstream.JetStream
}

// StartServer starts the embedded server of a connection.
func StartServer(ctx context.Context, c Config, connection string) (*Server, error) {
	server, conn, err := natsConnection{c, connection}.startServer(ctx)
	if err != nil {
		return nil, err
	}
	return newServer(&sharedConnection{Connection: conn, server: server})
}

// JoinServer connects to the embedded server of the daemon that runs over the data directory.
func JoinServer(ctx context.Context, c Config, connection string) (*Server, error) {
	conn, err := connectLocal(ctx, embeddedDir(c.Settings.DataDir, connection), client.Config{Name: connection, Log: c.Log})
	if err != nil {
		return nil, err
	}
	return newServer(&sharedConnection{Connection: conn})
}

func newServer(c *sharedConnection) (*Server, error) {
	js, err := jetstream.New(c.Conn())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the streams: %w", err), c.Close())
	}
	return &Server{c, js}, nil
}

// CountMessages counts the messages of a stream, which keeps each until it is settled. A stream
// that does not exist has none.
func (s *Server) CountMessages(ctx context.Context, stream string) (int64, error) {
	found, err := s.streams.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the stream %s: %w", stream, err)
	}
	return int64(found.CachedInfo().State.Msgs), nil
}

// LocalConnection returns the settings of an embedded server.
func LocalConnection() configs.Connection {
	return configs.Connection{NATS: configs.Strings{"embedded"}}
}

// LocalTrigger returns the settings of a trigger that receives from an embedded server, with a
// lease of the given length.
func LocalTrigger(lease time.Duration) configs.Trigger {
	return configs.Trigger{NATS: &configs.NATSTrigger{AckWait: configs.Duration(lease)}}
}
