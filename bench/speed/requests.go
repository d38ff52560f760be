package speed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/daemon/cli"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"

	"github.com/drover-run/drover/bench/proc"
	"github.com/drover-run/drover/bench/rig"
)

type RequestsCommand struct {
	Rounds      int           `default:"5" help:"Rounds; each runs all setups, in turn."`
	For         time.Duration `default:"5s" help:"How long each setup is measured in a round."`
	Connections int           `default:"64" help:"Connections of wrk."`
	Python      bool          `help:"Also measure an async Python function in one process."`
	Uvicorn     string        `help:"Also measure a bare ASGI app in uvicorn, with this Python, which has uvicorn, uvloop and httptools."`
	Profile     string        `help:"Write a CPU profile of the daemon of the last setup to this file, and measure nothing else."`
}

// requestsSetup is a server that answers at once.
type requestsSetup struct {
	name    string
	handler string   // of drover's function; empty: without drover
	command []string // of a peer, without its port; nil: this program
}

// requestsResult is what one setup did in a round.
type requestsResult struct {
	rate float64 // requests a second
	cpu  float64 // microseconds of the server's process for a request
	p99  float64 // milliseconds
}

const requestsConfig = `version: 1
data_dir: %[1]s/data
admin: {listen: "off"}
log: {level: error}
http: {listen: %[2]q}
functions:
  noop:
    trigger: {http: {auth: anonymous, methods: GET}}
    handler: %[3]s
`

const requestsApp = `
async def noop(message):
    return "ok"

async def bare(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
`

// Run measures what a request costs in drover's HTTP server with a Go function, beyond the same
// answer of a bare net/http server: CPU time of the server's process, without that of wrk.
func (c *RequestsCommand) Run(ctx context.Context) (err error) {
	if c.Rounds < 1 || c.For < time.Second || c.Connections < 1 {
		return errors.New("--rounds and --connections must be at least 1, --for 1s")
	}
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.WriteFile(filepath.Join(dir, "function_app.py"), []byte(requestsApp), 0o600); err != nil {
		return err
	}
	setups := []requestsSetup{{name: "bare net/http"}, {name: "drover, Go", handler: "{go: noop}"}}
	if c.Uvicorn != "" {
		setups = append(setups, requestsSetup{name: "uvicorn, bare ASGI app, one process", command: []string{
			c.Uvicorn, "-m", "uvicorn", "function_app:bare", "--app-dir", dir, "--no-access-log", "--log-level", "error", "--lifespan", "off", "--loop", "uvloop", "--http", "httptools", "--port",
		}})
	}
	if c.Python {
		setups = append(setups, requestsSetup{name: "drover, Python async, one process", handler: "{python: {path: " + dir + ", processes: 1}}"})
	}
	if c.Profile != "" {
		setups = setups[len(setups)-1:]
		c.Rounds = 1
	}
	results := make(map[string][]requestsResult)
	for round := range c.Rounds {
		for _, s := range setups {
			r, err := c.measure(ctx, dir, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s: %.0f/s, %.1f µs, p99 %.2f ms\n", round+1, c.Rounds, s.name, r.rate, r.cpu, r.p99)
			results[s.name] = append(results[s.name], r)
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "setup\trequests/s\tp99, ms\tCPU, µs\tbeyond bare, µs\t")
	bare := medianOf(results[setups[0].name], func(r requestsResult) float64 { return r.cpu })
	for _, s := range setups {
		all := results[s.name]
		cpu := medianOf(all, func(r requestsResult) float64 { return r.cpu })
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.1f\t%.1f\t\n", s.name, medianOf(all, func(r requestsResult) float64 { return r.rate }),
			medianOf(all, func(r requestsResult) float64 { return r.p99 }), cpu, cpu-bare)
	}
	return w.Flush()
}

func medianOf(all []requestsResult, of func(requestsResult) float64) float64 {
	values := make([]float64, len(all))
	for i, r := range all {
		values[i] = of(r)
	}
	return rig.Median(values)
}

// measure starts a server, warms it up, and measures it.
func (c *RequestsCommand) measure(ctx context.Context, dir string, s requestsSetup) (r requestsResult, err error) {
	free, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		return r, err
	}
	command, err := c.command(dir, address, s)
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		return r, err
	}
	defer func() {
		stopped := cmd.Process.Signal(os.Interrupt)
		if ended := cmd.Wait(); s.command == nil { // uvicorn exits with the signal's status
			stopped = errors.Join(stopped, ended)
		}
		err = errors.Join(err, stopped)
	}()
	url := "http://" + address + "/noop"
	if err := waitForAnswer(ctx, url); err != nil {
		return r, err
	}
	if _, _, _, err := c.wrk(ctx, url, time.Second); err != nil {
		return r, err
	}
	before, _, err := proc.Stat(cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	n, rate, p99, err := c.wrk(ctx, url, c.For)
	if err != nil {
		return r, err
	}
	after, _, err := proc.Stat(cmd.Process.Pid)
	return requestsResult{rate, float64((after - before).Microseconds()) / n, p99}, err
}

// command returns the command of a server on an address.
func (c *RequestsCommand) command(dir, address string, s requestsSetup) ([]string, error) {
	if s.command != nil {
		_, port, err := net.SplitHostPort(address)
		return append(s.command, port), err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := []string{self, "requests-daemon", address}
	if s.handler != "" {
		config := filepath.Join(dir, "drover.yaml")
		if err := os.WriteFile(config, fmt.Appendf(nil, requestsConfig, dir, address, s.handler), 0o600); err != nil {
			return nil, err
		}
		command = append(command, config)
	}
	if c.Profile != "" {
		command = append(command, "--profile", c.Profile)
	}
	return command, nil
}

func waitForAnswer(ctx context.Context, url string) error {
	for deadline := time.Now().Add(rig.StuckAfter); ; {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not answer: %w", err)
		}
		if err := rig.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

var (
	wrkTotal = regexp.MustCompile(`(\d+) requests in`)
	wrkP99   = regexp.MustCompile(`99%\s+([\d.]+)(us|ms|s)`)
	wrkBad   = regexp.MustCompile(`Non-2xx[^\n]*|Socket errors:[^\n]*`)
)

// wrk sends requests for a while, and returns how many were answered, how many a second, and the
// 99th percentile in milliseconds.
func (c *RequestsCommand) wrk(ctx context.Context, url string, d time.Duration) (n, rate, p99 float64, err error) {
	out, err := exec.CommandContext(ctx, "wrk", "-t2", "-c", strconv.Itoa(c.Connections), "-d", fmt.Sprintf("%.0fs", d.Seconds()), "--latency", url).CombinedOutput()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("wrk (Debian: apt-get install wrk): %w: %s", err, out)
	}
	if bad := wrkBad.Find(out); bad != nil {
		return 0, 0, 0, fmt.Errorf("wrk: %s", bad)
	}
	total, persec, late := wrkTotal.FindSubmatch(out), wrkRate.FindSubmatch(out), wrkP99.FindSubmatch(out)
	if total == nil || persec == nil || late == nil {
		return 0, 0, 0, fmt.Errorf("wrk printed %q", out)
	}
	n, _ = strconv.ParseFloat(string(total[1]), 64)
	rate, _ = strconv.ParseFloat(string(persec[1]), 64)
	p99, _ = strconv.ParseFloat(string(late[1]), 64)
	return n, rate, p99 * map[string]float64{"us": 0.001, "ms": 1, "s": 1000}[string(late[2])], nil
}

type RequestsDaemonCommand struct {
	Address string `arg:""`
	Config  string `arg:"" optional:""`
	Profile string
}

// Run answers requests: a daemon of the configuration or, without one, a bare server.
func (c *RequestsDaemonCommand) Run(ctx context.Context) error {
	if c.Config == "" {
		s := &http.Server{Addr: c.Address, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write([]byte("ok"))
		})}
		go func() { <-ctx.Done(); _ = s.Close() }()
		if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
	funcs := handlers.Funcs{"noop": func(context.Context, *triggers.Message) ([]byte, error) { return []byte("ok"), nil }}
	run := func() error {
		io := &cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.LookupEnv, Environ: os.Environ, Funcs: funcs}
		if status := cli.Command(ctx, []string{"run", c.Config}, io); status != cli.ExitOK {
			return fmt.Errorf("the daemon ended with status %d", status)
		}
		return nil
	}
	if c.Profile != "" {
		return profiled(c.Profile, run)
	}
	return run()
}
