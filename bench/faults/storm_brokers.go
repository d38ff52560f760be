package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers/natsjs/embedded"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
	storageemulator "github.com/drover-run/drover/triggers/storagequeue/emulator"

	"github.com/drover-run/drover/bench/azure"
	"github.com/drover-run/drover/bench/rig"
)

// This file has the brokers of a storm, and how each is broken.

// open starts the broker and writes the app and its configuration.
func (r *storm) open(ctx context.Context, kind string) (err error) {
	r.breakBroker = func(context.Context) error { return nil }
	r.stopBroker = func() error { return nil }
	switch kind {
	case "nats":
		err = r.openNATS(ctx)
	case "embedded":
		r.connection, r.trigger = "{nats: embedded}", fmt.Sprintf("nats: {ack_wait: %v}", stormLease)
	case "servicebus":
		e := emulator.New(emulator.Options{})
		address, outage, lErr := serveWithOutages(e.Serve)
		if lErr != nil {
			return lErr
		}
		r.breakBroker, r.stopBroker = outage, e.Close
		r.connection = fmt.Sprintf("{connection_string: %q}", e.ConnectionString(address))
		r.trigger = "servicebus: {}"
		err = e.CreateQueue("bench", emulator.QueueOptions{LockDuration: stormLease, MaxDeliveryCount: 1000})
	case "storagequeue":
		e, _, lErr := azure.StorageServer("bench")
		if lErr != nil {
			return lErr
		}
		address, outage, lErr := serveWithOutages(e.Serve)
		if lErr != nil {
			return lErr
		}
		r.breakBroker, r.stopBroker = outage, e.Close
		r.connection = fmt.Sprintf("{connection_string: %q}", storageemulator.ConnectionString(address))
		r.trigger = fmt.Sprintf("storage_queue: {encoding: text, lease: %v, max_dequeue_count: 0}", stormLease)
	}
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`version: 1
data_dir: data
connections: {source: %s}
functions:
  bench:
    trigger: {%s}
    handler: {python: {path: ., processes: 2, threads: 8}}
    retry: {max_attempts: 5, initial: 100ms}
`, r.connection, r.trigger)
	for name, text := range map[string]string{"drover.yaml": config, "function_app.py": stormApp, "runs": ""} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// openNATS starts a NATS server in a separate process, which a kill ends and which
// starts again on the same store.
func (r *storm) openNATS(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	store := filepath.Join(r.dir, "broker")
	var server *exec.Cmd
	start := func(ctx context.Context) error {
		server = exec.CommandContext(ctx, self, "storm", "--broker", store, "--listen", address)
		server.Stderr = os.Stderr
		if err := server.Start(); err != nil {
			return err
		}
		return rig.Until(ctx, func() bool {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return false
			}
			_ = conn.Close()
			return true
		})
	}
	r.stopBroker = func() error {
		_ = server.Process.Kill()
		_ = server.Wait() // it was killed
		return nil
	}
	r.breakBroker = func(ctx context.Context) error { return errors.Join(r.stopBroker(), start(ctx)) }
	r.connection = fmt.Sprintf("{nats: %q, token: %q}", "nats://"+address, "file:"+filepath.Join(store, "token"))
	r.trigger = fmt.Sprintf("nats: {create: true, ack_wait: %v}", stormLease)
	return start(ctx)
}

// stormBroker is the NATS server until it is killed.
func stormBroker(ctx context.Context, dir, listen string) error {
	server, err := embedded.Start(ctx, embedded.Config{Dir: dir, Listen: listen, Sync: 2 * time.Minute, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return server.Close(context.WithoutCancel(ctx))
}

// breakable is a listener whose connections can be cut.
type breakable struct {
	net.Listener

	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func (b *breakable) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		b.mu.Lock()
		down := b.down
		if !down {
			b.conns = append(b.conns, conn)
		}
		b.mu.Unlock()
		if !down {
			return conn, nil
		}
		_ = conn.Close()
	}
}

// outage cuts all connections and refuses new ones for stormOutage.
func (b *breakable) outage(ctx context.Context) error {
	b.mu.Lock()
	conns := b.conns
	b.conns, b.down = nil, true
	b.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
	}
	err := rig.Pause(ctx, stormOutage)
	b.mu.Lock()
	b.down = false
	b.mu.Unlock()
	return err
}

func serveWithOutages(serve func(net.Listener) error) (address string, outage func(context.Context) error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	b := &breakable{Listener: l}
	go func() { _ = serve(b) }() // until the emulator is closed
	return l.Addr().String(), b.outage, nil
}
