package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// This file tells systemd how the daemon is, where it was started by one
// (Type=notify): that it is ready, that it stops, and, fed from the daemon's own
// locks, that it moves.

// notifySystemd follows a daemon until the returned function is called.
func notifySystemd(ctx context.Context, std *IO, d *Daemon, ready <-chan struct{}, log *slog.Logger) (stop func()) {
	if socket, found := std.Env("NOTIFY_SOCKET"); !found || socket == "" {
		return func() {}
	}
	tell := func(state string) {
		if _, err := systemd.SdNotify(false, state); err != nil {
			log.Warn("systemd cannot be told", "state", state, "error", err)
		}
	}
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is not fed", "error", err)
	}
	if interval <= 0 {
		interval = time.Hour // only the status, now and then
	}
	feed := time.NewTicker(interval / 3)
	ended := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		stopping := ctx.Done()
		for {
			select {
			case <-ready:
				ready = nil
				tell("READY=1\nSTATUS=" + d.summary())
			case <-feed.C:
				// A lock that nobody lets go of keeps this from being said.
				tell("WATCHDOG=1\nSTATUS=" + d.summary())
			case <-stopping:
				stopping = nil
				tell("STOPPING=1\nSTATUS=draining")
			case <-ended:
				return
			}
		}
	})
	return func() {
		close(ended)
		running.Wait()
		feed.Stop()
	}
}

// summary is how the daemon is, in a line; it takes the locks that messages take.
func (d *Daemon) summary() string {
	var received, done, failed, inFlight int64
	for _, s := range d.Status() {
		received, done, failed, inFlight = received+s.Received, done+s.Done, failed+s.Failed, inFlight+s.InFlight
	}
	for _, f := range d.running() {
		f.share.Room()
	}
	for _, p := range d.pools() {
		p.Stats()
	}
	return fmt.Sprintf("%s: received %d, done %d, failed %d, in flight %d", d.inPhase(), received, done, failed, inFlight)
}
