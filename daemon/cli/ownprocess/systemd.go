package ownprocess

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Systemd notifies systemd, if that started the process as a unit of Type=notify: that the
// daemon is ready, reloads or stops, and, for the watchdog, that it makes progress. A nil one
// does nothing.
type Systemd struct {
	summary func() string
	log     *slog.Logger
	ended   chan struct{}
	running sync.WaitGroup
}

// NotifySystemd begins to notify systemd, until Close is called: when ready is closed, when ctx
// ends, and at a third of the watchdog's interval. It returns nil if systemd did not start the
// process. summary returns the state of the daemon in one line; it takes the daemon's locks, so
// the watchdog is not fed while one of them is stuck.
func NotifySystemd(ctx context.Context, env func(string) (string, bool), summary func() string, ready <-chan struct{}, log *slog.Logger) *Systemd {
	if socket, found := env("NOTIFY_SOCKET"); !found || socket == "" {
		return nil
	}
	n := &Systemd{summary: summary, log: log, ended: make(chan struct{})}
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
				n.sendState("READY=1\nSTATUS=" + summary())
			case <-feed.C:
				n.sendState("WATCHDOG=1\nSTATUS=" + summary())
			case <-stopping:
				stopping = nil
				n.sendState("STOPPING=1\nSTATUS=draining")
			case <-n.ended:
				return
			}
		}
	})
	return n
}

func (n *Systemd) sendState(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		n.log.Warn("cannot notify systemd", "state", state, "error", err)
	}
}

// BeginReload reports that a reload begins.
func (n *Systemd) BeginReload() {
	if n == nil {
		return
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		n.log.Warn("the clock cannot be read", "error", err)
	}
	n.sendState(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// EndReload reports that the reload has ended, whether it succeeded or not.
func (n *Systemd) EndReload() {
	if n != nil {
		n.sendState("READY=1\nSTATUS=" + n.summary())
	}
}

// Close stops the notifications.
func (n *Systemd) Close() {
	if n != nil {
		close(n.ended)
		n.running.Wait()
	}
}
