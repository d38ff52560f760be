package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/triggers/natsjs"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

// reachNATS reaches the server of a connection for a command: that of the running
// daemon by its listener, or, where none runs, the embedded one, which is started
// here and runs until done. started says so.
func reachNATS(ctx context.Context, cfg *configs.Config, name string, log *slog.Logger) (c *natsjs.Connection, started bool, done func() error, err error) {
	connection := cfg.Connections[name]
	if !connection.Embedded() {
		c, err := natsjs.Connect(ctx, connectionConfig(name, connection, log))
		if err != nil {
			return nil, false, nil, err
		}
		return c, false, c.Close, nil
	}
	url, token, readErr := embedded.ReadClient(embeddedDir(cfg, name))
	if readErr == nil {
		c, err := natsjs.Connect(ctx, natsjs.ConnectionConfig{Name: "drover command", URLs: []string{url}, Token: token, Log: log})
		if err == nil {
			return c, false, c.Close, nil
		}
		readErr = err // left behind by a daemon that was killed
	}
	server, c, err := startEmbedded(ctx, cfg, name, log)
	if errors.Is(err, embedded.ErrLocked) {
		return nil, false, nil, fmt.Errorf("a daemon uses %s and does not answer (is its connection set to `listen: off`?): %w", cfg.DataDir, readErr)
	}
	if err != nil {
		return nil, false, nil, err
	}
	return c, true, func() error { return closeEmbedded(server, c) }, nil
}
