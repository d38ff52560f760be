package rig

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

// Server is an embedded NATS server for one measurement, with a connection to it.
type Server struct {
	Dir        string // a temporary directory
	Store      string // the server's directory in Dir
	Connection *client.Connection
}

// WithServer runs do beside an embedded NATS server, which listens on an address; "off": on none.
func WithServer(ctx context.Context, listen string, do func(Server) error) (err error) {
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := Server{Dir: dir, Store: filepath.Join(dir, "nats")}
	quiet := slog.New(slog.DiscardHandler)
	server, err := embedded.Start(ctx, embedded.Config{Dir: s.Store, Listen: listen, Sync: 2 * time.Minute, Log: quiet})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close(context.WithoutCancel(ctx))) }()
	if s.Connection, err = client.ConnectInProcess(ctx, server, quiet); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Connection.Close()) }()
	return do(s)
}
