package azure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus"
	"github.com/drover-run/drover/triggers/servicebus/emulator"

	"github.com/drover-run/drover/bench/rig"
)

const (
	// lockLast is the shortest lock that the service has, and workLast almost as long.
	lockLast, workLast = 5 * time.Second, 4500 * time.Millisecond
	lockBacklog        = 500
	lockSlots          = 16
	// breaks is the number of cut connections, and of killed daemons.
	breaks = 5
)

// loads counts the messages that the SDK releases unseen.
func (c *ServiceBusCommand) loads(ctx context.Context) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "what\tfigure\tto reach\t")
	for _, load := range []struct {
		name  string
		every time.Duration // between two messages that are sent; 0 is all at first
		n     int
		work  time.Duration
	}{
		{"300 messages/s, 1 ms each", time.Second / 300, 3000, time.Millisecond},
		{"2,000 messages/s, 5 ms each", time.Second / 2000, 10_000, 5 * time.Millisecond},
		{"a backlog, 300 ms each", 0, 2000, 300 * time.Millisecond},
	} {
		unseen, err := c.released(ctx, load.n, load.every, load.work)
		if err != nil {
			return fmt.Errorf("%s: %w", load.name, err)
		}
		fmt.Fprintf(w, "released unseen: %s\t%d of %d\t0\t\n", load.name, unseen, load.n)
	}
	return w.Flush()
}

// faults are what drover does when something breaks.
func (c *ServiceBusCommand) faults(ctx context.Context) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "what\tfigure\tto reach\t")
	lost, twice, err := c.locks(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "5 s lock, 4.5 s of work, 500 messages, 16 slots: locks lost\t%d\t0\t\n", lost)
	fmt.Fprintf(w, "the same: messages handled twice\t%d\t0\t\n", twice)
	gap, worst, err := c.cut(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "a connection is cut: until messages are settled again\t%.2f s (worst %.2f)\t2 s\t\n", gap.Seconds(), worst.Seconds())
	gap, worst, err = c.killed(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "kill -9, 5 s lock: until the message runs again\t%.2f s (worst %.2f)\t7 s\t\n", gap.Seconds(), worst.Seconds())
	return w.Flush()
}

// BusServer is an emulator with the queue bench.
func BusServer(o emulator.QueueOptions) (e *emulator.Emulator, connection string, err error) {
	e = emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", errors.Join(err, e.Close())
	}
	go func() { _ = e.Serve(l) }()
	return e, e.ConnectionString(l.Addr().String()), e.CreateQueue("bench", o)
}

// send sends n messages, one every so often.
func (c *ServiceBusCommand) send(ctx context.Context, connection string, n int, every time.Duration) (err error) {
	s, err := servicebus.NewSender(BusAccess(connection), "bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	body := make([]byte, c.Size)
	next := time.Now()
	for range n {
		if err := s.Send(ctx, &triggers.Message{Body: body}); err != nil {
			return err
		}
		if every == 0 {
			continue
		}
		if next = next.Add(every); time.Until(next) > time.Millisecond {
			if err := s.Flush(ctx); err != nil {
				return err
			}
			if err := rig.Pause(ctx, time.Until(next)); err != nil {
				return err
			}
		}
	}
	return s.Flush(ctx)
}

func (c *ServiceBusCommand) released(ctx context.Context, n int, every, work time.Duration) (unseen int, err error) {
	e, connection, err := BusServer(emulator.QueueOptions{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, rig.StuckAfter)
	defer cancel()
	d, stop, err := busDaemon(ctx, connection, busSettlers, func(ctx context.Context, _ *triggers.Message) ([]byte, error) {
		return nil, rig.Pause(ctx, work)
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := c.send(ctx, connection, n, every); err != nil {
		return 0, err
	}
	if err := rig.Until(ctx, func() bool { return d.Status()[0].Done >= int64(n) }); err != nil {
		return 0, err
	}
	u, err := e.Usage("bench")
	return u.Released, err
}

// locks has functions take almost as long as a lock.
func (c *ServiceBusCommand) locks(ctx context.Context) (lost, twice int, err error) {
	e, connection, err := BusServer(emulator.QueueOptions{LockDuration: lockLast})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := c.send(ctx, connection, lockBacklog, 0); err != nil {
		return 0, 0, err
	}
	var mu sync.Mutex
	runs := make(map[string]int)
	d, stop, err := busDaemon(ctx, connection, lockSlots, func(ctx context.Context, m *triggers.Message) ([]byte, error) {
		mu.Lock()
		runs[m.ID]++
		mu.Unlock()
		return nil, rig.Pause(ctx, workLast)
	})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := rig.Until(ctx, func() bool { return d.Status()[0].Done >= lockBacklog }); err != nil {
		return 0, 0, err
	}
	u, err := e.Usage("bench")
	if len(runs) != lockBacklog {
		err = errors.Join(err, fmt.Errorf("%d messages of %d ran", len(runs), lockBacklog))
	}
	for _, n := range runs {
		twice += n - 1
	}
	return u.Lost, twice, err
}

// cut breaks the connection under load, and waits for the next settlement.
func (c *ServiceBusCommand) cut(ctx context.Context) (middle, worst time.Duration, err error) {
	e, connection, err := BusServer(emulator.QueueOptions{})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := c.send(ctx, connection, 100_000, 0); err != nil {
		return 0, 0, err
	}
	left := func() int {
		n, _ := e.Counts("bench") // the queue is there
		return n.Active + n.Locked
	}
	_, stop, err := busDaemon(ctx, connection, lockSlots, func(ctx context.Context, _ *triggers.Message) ([]byte, error) {
		return nil, rig.Pause(ctx, 10*time.Millisecond)
	})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	var gaps []time.Duration
	for range breaks {
		if err := rig.Pause(ctx, 2*time.Second); err != nil {
			return 0, 0, err
		}
		e.DropConnections()
		start, before := time.Now(), left()
		if err := rig.Until(ctx, func() bool { return left() < before }); err != nil {
			return 0, 0, err
		}
		gaps = append(gaps, time.Since(start))
		worst = max(worst, gaps[len(gaps)-1])
	}
	return rig.Median(gaps), worst, nil
}

const killedApp = `import time
def bench(message):
    print("runs", flush=True)
    time.sleep(3600)
`

// killed kills a daemon that works on a message, and starts another at once.
func (c *ServiceBusCommand) killed(ctx context.Context) (middle, worst time.Duration, err error) {
	e, connection, err := BusServer(emulator.QueueOptions{LockDuration: lockLast, MaxDeliveryCount: 100})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := c.send(ctx, connection, 1, 0); err != nil {
		return 0, 0, err
	}
	return kills(ctx, connection, "servicebus: {}", breaks)
}

// kills kills daemons that work on the message that is there, and measures until
// the next one works on it.
func kills(ctx context.Context, connection, trigger string, n int) (middle, worst time.Duration, err error) {
	dir, binary, err := rig.BuildDrover(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	config := fmt.Sprintf("version: 1\nconnections: {source: {connection_string: \"${SOURCE}\"}}\nfunctions:\n  bench:\n    trigger: {%s}\n    handler: {python: {path: ., processes: 1}}\n", trigger)
	for name, content := range map[string]string{"drover.yaml": config, "function_app.py": killedApp} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return 0, 0, err
		}
	}
	var gaps []time.Duration
	var killedAt time.Time
	for i := range n + 1 {
		cmd := exec.CommandContext(ctx, binary, "run", "drover.yaml")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "SOURCE="+connection)
		out, err := cmd.StderrPipe()
		if err != nil {
			return 0, 0, err
		}
		if err := cmd.Start(); err != nil {
			return 0, 0, err
		}
		err = saysRuns(out)
		if i > 0 {
			gaps = append(gaps, time.Since(killedAt))
			worst = max(worst, gaps[len(gaps)-1])
		}
		killedAt = time.Now()
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGKILL))
		_, _ = io.Copy(io.Discard, out) // until it is gone
		_ = cmd.Wait()                  // it was killed
		if err != nil {
			return 0, 0, err
		}
	}
	return rig.Median(gaps), worst, nil
}

func saysRuns(log io.Reader) error {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "runs") {
			return nil
		}
	}
	return errors.Join(errors.New("the daemon ended before its function ran"), lines.Err())
}
