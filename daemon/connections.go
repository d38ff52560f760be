package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/triggers/natsjs"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

// This file opens the connections to NATS that functions use, and the servers that are
// embedded. Azure is reached by triggers and senders of their own.

// lockPatience is how long a start waits for a store that another process has.
const lockPatience = 5 * time.Second

// connection is one to NATS, and the embedded server behind it, if it has one.
type connection struct {
	*natsjs.Connection
	server *embedded.Server
}

func (c *connection) close() error {
	err := c.Close()
	if c.server != nil {
		err = errors.Join(err, c.server.Close(context.Background()))
	}
	return err
}

// connect opens the connections that functions use and that the program has not
// given.
func (p *parts) connect(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Functions)) {
		for _, connection := range p.cfg.Functions[name].Connections() {
			if p.daemon.triggers[name] != nil && connection == p.cfg.Functions[name].Trigger.Connection() {
				continue // the program's own
			}
			if err := p.connectTo(ctx, connection); err != nil {
				return err
			}
		}
	}
	return nil
}

// connectTo opens a connection to NATS, once.
func (p *parts) connectTo(ctx context.Context, name string) error {
	d := p.daemon
	settings := p.cfg.Connections[name]
	if len(settings.NATS) == 0 { // the others are reached by their triggers and outputs
		return nil
	}
	if d.connections[name] != nil || p.connections[name] != nil {
		return nil
	}
	if p.keepsConnection(name) && p.old.connections[name] != nil {
		p.connections[name] = p.old.connections[name]
		return nil
	}
	if reach, ours, err := d.reach(name, settings); err != nil {
		return err
	} else if !ours {
		c, err := natsjs.Connect(ctx, reach)
		if err != nil {
			return err
		}
		p.connections[name] = &connection{Connection: c}
		return nil
	}
	server, c, err := startEmbedded(ctx, p.cfg, name, d.log)
	// A command, such as drover send, may have the store for a moment.
	for deadline := time.Now().Add(lockPatience); errors.Is(err, embedded.ErrLocked) && time.Now().Before(deadline) && ctx.Err() == nil; {
		wait(ctx, lockPatience/100)
		server, c, err = startEmbedded(ctx, p.cfg, name, d.log)
	}
	if err != nil {
		return err
	}
	p.connections[name] = &connection{Connection: c, server: server}
	d.stores.add(name, server)
	if url := server.ClientURL(); url != "" {
		d.log.Info("embedded NATS server listening", "connection", name, "url", url,
			"token_in", filepath.Join(embeddedDir(p.cfg, name), "token"))
	}
	return nil
}

// reach says how a connection is reached, or that its server is ours to start.
func (d *Daemon) reach(name string, settings configs.Connection) (cfg natsjs.ConnectionConfig, ours bool, err error) {
	if !settings.Embedded() {
		return connectionConfig(name, settings, d.log), false, nil
	}
	if d.parent == "" {
		return cfg, true, nil
	}
	url, token, err := embedded.ReadClient(embeddedIn(d.parent, name))
	return natsjs.ConnectionConfig{Name: name, URLs: []string{url}, Token: token, Log: d.log}, false, err
}

func (p *parts) connection(name string) *natsjs.Connection {
	if c := p.daemon.connections[name]; c != nil {
		return c
	}
	return p.connections[name].Connection
}

// embeddedDir is where the embedded server of a connection keeps its data.
func embeddedDir(cfg *configs.Config, connection string) string {
	return embeddedIn(cfg.DataDir, connection)
}

func embeddedIn(dataDir, connection string) string { return filepath.Join(dataDir, "nats-"+connection) }

func startEmbedded(ctx context.Context, cfg *configs.Config, connection string, log *slog.Logger) (*embedded.Server, *natsjs.Connection, error) {
	settings := cfg.Connections[connection]
	server, err := embedded.Start(ctx, embedded.Config{
		Dir: embeddedDir(cfg, connection), Listen: settings.Listen, Sync: settings.Sync.D(), MaxStore: int64(settings.MaxStore), Log: log,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connection %s: %w", connection, err)
	}
	c, err := natsjs.ConnectInProcess(ctx, server, log)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("connection %s: %w", connection, err), server.Close(ctx))
	}
	return server, c, nil
}

func closeEmbedded(server *embedded.Server, c *natsjs.Connection) error {
	return errors.Join(c.Close(), server.Close(context.Background()))
}

func connectionConfig(name string, c configs.Connection, log *slog.Logger) natsjs.ConnectionConfig {
	out := natsjs.ConnectionConfig{
		Name: name, URLs: c.NATS, Log: log,
		Credentials: string(c.Credentials), NKey: string(c.NKey), Token: string(c.Token),
		User: c.User, Password: string(c.Password),
	}
	if c.TLS != nil {
		out.CA, out.Cert, out.Key, out.ServerName = c.TLS.CA, c.TLS.Cert, string(c.TLS.Key), c.TLS.ServerName
	}
	return out
}

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	sleep := time.NewTimer(d)
	defer sleep.Stop()
	select {
	case <-sleep.C:
	case <-ctx.Done():
	}
}
