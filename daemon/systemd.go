package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// This file tells systemd how the daemon is, where it was started by one
// (Type=notify): that it is ready, that it stops, and, fed from the daemon's own
// locks, that it moves.

// systemdNotifier tells systemd; nil where it was not systemd that started the
// daemon.
type systemdNotifier struct {
	daemon  *Daemon
	log     *slog.Logger
	ended   chan struct{}
	running sync.WaitGroup
}

// followSystemd tells how a daemon is until leave is called.
func followSystemd(ctx context.Context, std *IO, d *Daemon, ready <-chan struct{}, log *slog.Logger) *systemdNotifier {
	if socket, found := std.Env("NOTIFY_SOCKET"); !found || socket == "" {
		return nil
	}
	n := &systemdNotifier{daemon: d, log: log, ended: make(chan struct{})}
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is not fed", "error", err)
	}
	if interval <= 0 {
		interval = time.Hour // only the status, now and then
	}
	n.running.Go(func() {
		feed := time.NewTicker(interval / 3)
		defer feed.Stop()
		stopping := ctx.Done()
		for {
			select {
			case <-ready:
				ready = nil
				n.tell("READY=1\nSTATUS=" + d.summary())
			case <-feed.C:
				// A lock that nobody lets go of keeps this from being said.
				n.tell("WATCHDOG=1\nSTATUS=" + d.summary())
			case <-stopping:
				stopping = nil
				n.tell("STOPPING=1\nSTATUS=draining")
			case <-n.ended:
				return
			}
		}
	})
	return n
}

func (n *systemdNotifier) tell(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		n.log.Warn("cannot notify systemd", "state", state, "error", err)
	}
}

// reloading says that a reload begins, and reloaded that it ended, in either way.
func (n *systemdNotifier) reloading() {
	if n == nil {
		return
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		n.log.Warn("the clock cannot be read", "error", err)
	}
	n.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

func (n *systemdNotifier) reloaded() {
	if n != nil {
		n.tell("READY=1\nSTATUS=" + n.daemon.summary())
	}
}

func (n *systemdNotifier) leave() {
	if n != nil {
		close(n.ended)
		n.running.Wait()
	}
}

// summary is how the daemon is, in a line; it takes the locks that messages take.
func (d *Daemon) summary() string {
	var received, done, failed, inFlight int64
	for _, s := range d.Status() {
		received, done, failed, inFlight = received+s.Received, done+s.Done, failed+s.Failed, inFlight+s.InFlight
	}
	for _, f := range d.running() {
		f.Share.Room()
	}
	for _, p := range d.appRegistry.CurrentPools() {
		p.Stats()
	}
	return fmt.Sprintf("%s: received %d, done %d, failed %d, in flight %d", d.inPhase(), received, done, failed, inFlight)
}
