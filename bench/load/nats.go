package load

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/bench/work"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
)

// The stream, its subject and drover's consumer.
const (
	Stream  = "JOB"
	Subject = "job"
)

// ServerVersion is the version of the NATS server.
const ServerVersion = server.VERSION

// ServerCommand is the hidden command that runs a NATS server in a separate process, as
// nats-server runs it.
type ServerCommand struct {
	Dir  string `arg:""`
	Port int    `arg:""`
}

// Run runs the server until a signal ends it.
func (c *ServerCommand) Run(ctx context.Context) error {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: c.Port, JetStream: true, StoreDir: c.Dir, NoSigs: true, SyncInterval: 2 * time.Minute,
	})
	if err != nil {
		return err
	}
	s.Start()
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// Server is a NATS server in its own process.
type Server struct {
	*Process
	URL  string
	conn *nats.Conn
	JS   jetstream.JetStream
}

// StartServer starts a NATS server with a file store below a directory.
func StartServer(ctx context.Context, dir string) (*Server, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	process, err := StartProcess(ctx, dir, os.Environ(), program, "nats-server", filepath.Join(dir, "nats"), strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	s := &Server{Process: process, URL: fmt.Sprintf("nats://127.0.0.1:%d", port)}
	if err := process.WaitForPort(ctx, fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.conn, err = nats.Connect(s.URL); err == nil {
		s.JS, err = jetstream.New(s.conn)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends the connection and the server.
func (s *Server) Close() error {
	if s.conn != nil {
		s.conn.Close()
	}
	return s.Process.Close()
}

// MakeStream creates the stream: a work queue as drover creates it, or one of retention limits.
func MakeStream(ctx context.Context, js jetstream.JetStream, limits bool) error {
	if limits {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: Stream, Subjects: []string{Subject}, Storage: jetstream.FileStorage})
		return err
	}
	_, _, err := consumers.Open(ctx, js, consumers.Config{
		Stream: Stream, Subject: Subject, Consumer: Subject, Create: true, AckWait: 30 * time.Second, MaxAttempts: 5,
	}, slog.New(slog.DiscardHandler))
	return err
}

// BodyMessages makes messages that have only a body.
func BodyMessages(size int) func() *nats.Msg {
	return func() *nats.Msg { return &nats.Msg{Subject: Subject, Data: work.Body(size)} }
}

// Publish publishes messages to the stream at a rate, or as fast as possible if that is 0.
func Publish(ctx context.Context, js jetstream.JetStream, messages, rate int, next func() *nats.Msg) error {
	return work.AtRate(ctx, messages, rate, func(n int) error {
		if _, err := js.PublishMsgAsync(next()); err != nil {
			return err
		}
		if n < messages && (n%2000 != 0 || rate > 0) {
			return nil
		}
		select {
		case <-js.PublishAsyncComplete():
			return nil
		case <-time.After(startLimit):
			return errors.New("NATS did not confirm the messages in time")
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// fillEmbedded puts messages into the store of an embedded server that does not run.
func fillEmbedded(ctx context.Context, dir string, limits bool, messages int, next func() *nats.Msg) (err error) {
	quiet := slog.New(slog.DiscardHandler)
	s, err := embedded.Start(ctx, embedded.Config{Dir: dir, Listen: "off", Sync: 2 * time.Minute, Log: quiet})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	conn, err := client.ConnectInProcess(ctx, s, quiet)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := MakeStream(ctx, conn.JetStream(), limits); err != nil {
		return err
	}
	return Publish(ctx, conn.JetStream(), messages, 0, next)
}
