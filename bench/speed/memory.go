package speed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/embedded"

	"github.com/drover-run/drover/bench/rig"
)

type MemoryCommand struct {
	Messages int `default:"600" help:"Messages in flight."`
	Size     int `default:"1" help:"The size of their bodies, in MiB."`
	Budget   int `default:"100" help:"in_flight_memory of the second half, in MiB."`
	Rounds   int `default:"3" help:"How many messages each slot handles, one after the other."`
}

const memoryApp = `import asyncio
async def hold(body):
    await asyncio.sleep(2)
`

// Run measures the peak memory of the daemon's own process, beyond what it has at rest,
// by the bodies that are in flight.
func (c *MemoryCommand) Run(ctx context.Context) error {
	fmt.Printf("%d messages of %d MiB, all in flight, each for 2 s; the daemon's own process\n\n", c.Messages, c.Size)
	fmt.Println("| function | in_flight_memory | bodies in flight, MiB | at rest, MiB | peak, MiB | (peak - at rest) / bodies |")
	fmt.Println("| --- | --- | --- | --- | --- | --- |")
	for _, language := range []string{"go", "python"} {
		for _, budget := range []int{4 * c.Messages * c.Size, c.Budget} {
			if err := c.measure(ctx, language, budget); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *MemoryCommand) measure(ctx context.Context, language string, budget int) error {
	return rig.WithServer(ctx, "127.0.0.1:0", func(server rig.Server) error {
		return c.measureOn(ctx, server, language, budget)
	})
}

// measureOn measures with the messages of a server.
func (c *MemoryCommand) measureOn(ctx context.Context, server rig.Server, language string, budget int) (err error) {
	dir := server.Dir
	url, token, err := embedded.ReadClient(server.Store)
	if err != nil {
		return err
	}
	handler := "{go: hold}"
	if language == "python" {
		handler = fmt.Sprintf("{python: {path: ., function: hold, processes: 1, coroutines: %d}}", c.Messages)
	}
	config := fmt.Sprintf(`version: 1
in_flight_memory: %dMiB
connections: {here: {nats: %q, token: %q}}
admin: {listen: "off"}
log: {level: warn}
functions:
  hold:
    trigger: {nats: {connection: here, stream: HOLD, create: true}}
    concurrency: %d
    prefetch: 0
    handler: %s
`, budget, url, token, c.Messages, handler)
	for name, text := range map[string]string{"drover.yaml": config, "function_app.py": memoryApp} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "memory-daemon", filepath.Join(dir, "drover.yaml"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cmd.Process.Signal(os.Interrupt), cmd.Wait()) }()
	js, err := jetstream.New(server.Connection.Conn())
	if err != nil {
		return err
	}
	var consumer jetstream.Consumer
	for deadline := time.Now().Add(rig.StuckAfter); consumer == nil; {
		if consumer, err = js.Consumer(ctx, "HOLD", "hold"); err != nil && time.Now().After(deadline) {
			return fmt.Errorf("the daemon does not start: %w", err)
		}
		if err := rig.Pause(ctx, time.Second); err != nil {
			return err
		}
	}
	rest, err := peak(cmd.Process.Pid)
	if err != nil {
		return err
	}
	body := make([]byte, c.Size<<20)
	for range c.Messages * c.Rounds {
		if _, err := js.Publish(ctx, "hold", body); err != nil {
			return err
		}
	}
	most := 0
	for deadline := time.Now().Add(rig.StuckAfter); ; {
		info, err := consumer.Info(ctx)
		if err != nil {
			return err
		}
		if most = max(most, info.NumAckPending); info.NumPending == 0 && info.NumAckPending == 0 || time.Now().After(deadline) {
			break
		}
		if err := rig.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	highest, err := peak(cmd.Process.Pid)
	if err != nil {
		return err
	}
	bodies := most * c.Size
	fmt.Printf("| %s | %d MiB | %d | %d | %d | %.2f |\n", language, budget, bodies, rest>>20, highest>>20, float64(highest-rest)/float64(bodies<<20))
	return nil
}

// peak is the most resident memory that a process had, in bytes (Linux).
func peak(pid int) (int64, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }() // it was only read
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if value, found := strings.CutPrefix(lines.Text(), "VmHWM:"); found {
			kB, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kB << 10, err
		}
	}
	return 0, errors.New("the kernel does not report the peak of a process's memory")
}

// MemoryDaemonCommand is the daemon of the above, with a Go function.
type MemoryDaemonCommand struct {
	File string `arg:""`
}

func (c *MemoryDaemonCommand) Run() error {
	os.Args = []string{"drover", "run", c.File}
	cli.Main(daemon.WithFuncs(handlers.Funcs{"hold": func(context.Context, *triggers.Message) ([]byte, error) {
		time.Sleep(2 * time.Second)
		return nil, nil
	}}))
	return nil
}
