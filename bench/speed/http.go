package speed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/bench/rig"
)

type HTTPCommand struct {
	Rounds   int `default:"5" help:"Rounds; each runs all, in turn."`
	Messages int `default:"100000" help:"Messages for each round."`
	Size     int `default:"128" help:"Bytes of a message."`

	URL     string `help:"Post to the app at this URL instead of one that is started and answers at once."`
	Profile string `help:"Write a CPU profile of drover's part to this file, and leave the others out."`

	Serve bool `hidden:"" help:"Be the app: answer at once on a port that is printed."`
}

// Run measures drover's handler for HTTP apps beside wrk and a bare Go client, all
// against the same app, a separate process that answers at once.
func (c *HTTPCommand) Run(ctx context.Context) error {
	if c.Serve {
		return serveApp(ctx)
	}
	if c.Rounds < 1 || c.Messages < 1000 || c.Size < 0 {
		return errors.New("--rounds must be at least 1, --messages 1000, --size 0")
	}
	url := c.URL
	if url == "" {
		app, stop, err := startApp(ctx)
		if err != nil {
			return err
		}
		defer stop()
		url = app
	}
	if c.Profile != "" {
		return profiled(c.Profile, func() error {
			rate, err := c.drover("")(ctx, url)
			fmt.Printf("%.0f messages/s\n", rate)
			return err
		})
	}
	rates := make(map[string][]float64)
	for round := range c.Rounds {
		for _, who := range []struct {
			name string
			run  func(context.Context, string) (float64, error)
		}{{"wrk", c.wrk(nil)}, {"alike", c.wrk(c.headers())}, {"bare", c.bareClient}, {"drover", c.drover("")}, {"plain", c.drover("off")}} {
			rate, err := who.run(ctx, url)
			if errors.Is(err, exec.ErrNotFound) {
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", who.name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s %.0f/s\n", round+1, c.Rounds, who.name, rate)
			rates[who.name] = append(rates[who.name], rate)
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "setup\tmessages/s\tratio\tto reach\t")
	bare, own := rig.Median(rates["bare"]), rig.Median(rates["drover"])
	if len(rates["wrk"]) > 0 {
		fmt.Fprintf(w, "wrk, 64 connections\t%.0f\t1\t\t\n", rig.Median(rates["wrk"]))
	}
	fmt.Fprintf(w, "Go's client alone, 64 goroutines\t%.0f\t\t\t\n", bare)
	fmt.Fprintf(w, "drover, 64 slots\t%.0f\t%.2f ÷ Go's client\t\t\n", own, own/bare)
	if len(rates["wrk"]) > 0 {
		fmt.Fprintf(w, "\t\t%.2f ÷ wrk\t0.6\t\n", own/rig.Median(rates["wrk"]))
	}
	plain := rig.Median(rates["plain"])
	fmt.Fprintf(w, "drover, cloudevents: off\t%.0f\t%.2f ÷ Go's client\t\n", plain, plain/bare)
	if len(rates["wrk"]) > 0 {
		alike := rig.Median(rates["alike"])
		fmt.Fprintf(w, "\t\t%.2f ÷ wrk\t\t\n", plain/rig.Median(rates["wrk"]))
		fmt.Fprintf(w, "wrk, with the headers that drover sends\t%.0f\t%.2f ÷ wrk\t\t\n", alike, alike/rig.Median(rates["wrk"]))
		fmt.Fprintf(w, "\tdrover is\t%.2f ÷ that\t\t\n", own/alike)
	}
	return w.Flush()
}

func serveApp(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})}
	go func() { <-ctx.Done(); _ = s.Close() }()
	return s.Serve(l)
}

// startApp runs this program as the app.
func startApp(ctx context.Context) (url string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, "http", "--serve")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	line := make([]byte, 100)
	n, err := out.Read(line)
	return strings.TrimSpace(string(line[:n])), func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}, err
}

var wrkRate = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)

// headers returns the headers that drover sends for a message of the bench, without its ID.
func (c *HTTPCommand) headers() map[string]string {
	return map[string]string{
		"Content-Type": "application/octet-stream", "User-Agent": "drover",
		"Drover-Function": "noop", "Drover-Attempt": "1", "Drover-Message-Id": "BENCH:123456",
		"Ce-Specversion": "1.0", "Ce-Id": "BENCH:123456", "Ce-Source": "/bench", "Ce-Type": "run.drover.message",
		"Ce-Subject": "bench", "Ce-Time": "2026-01-02T03:04:05.123456789Z",
	}
}

// wrk posts the same body for as long as drover takes, about.
func (c *HTTPCommand) wrk(headers map[string]string) func(context.Context, string) (float64, error) {
	return func(ctx context.Context, url string) (float64, error) { return c.runWrk(ctx, url, headers) }
}

func (c *HTTPCommand) runWrk(ctx context.Context, url string, headers map[string]string) (float64, error) {
	script := filepath.Join(os.TempDir(), fmt.Sprintf("drover-bench-%d.lua", os.Getpid()))
	text := fmt.Sprintf("wrk.method = 'POST'\nwrk.body = string.rep('x', %d)\n", c.Size)
	for name, value := range headers {
		text += fmt.Sprintf("wrk.headers[%q] = %q\n", name, value)
	}
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(script) }() // it is the system's to clean, too
	out, err := exec.CommandContext(ctx, "wrk", "-t2", "-c", strconv.Itoa(rig.HTTPSlots), "-d4s", "-s", script, url).Output()
	if err != nil {
		return 0, err
	}
	m := wrkRate.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("wrk says %q", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// bareClient posts with Go's client alone.
func (c *HTTPCommand) bareClient(ctx context.Context, url string) (float64, error) {
	client := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: rig.HTTPSlots, DisableCompression: true}}
	defer client.CloseIdleConnections()
	body := make([]byte, c.Size)
	var left atomic.Int64
	left.Store(int64(c.Messages))
	var failure atomic.Pointer[error]
	var all sync.WaitGroup
	began := time.Now()
	for range rig.HTTPSlots {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
				if err != nil {
					failure.Store(&err)
					return
				}
				response, err := client.Do(request)
				if err != nil {
					failure.Store(&err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		})
	}
	all.Wait()
	if err := failure.Load(); err != nil {
		return 0, *err
	}
	return float64(c.Messages) / time.Since(began).Seconds(), nil
}

// drover measures drover with a stream of messages, sent in the format events.
func (c *HTTPCommand) drover(events string) func(context.Context, string) (float64, error) {
	return func(ctx context.Context, url string) (float64, error) { return c.runDrover(ctx, url, events) }
}

func (c *HTTPCommand) runDrover(ctx context.Context, url, events string) (rate float64, err error) {
	r, err := rig.New(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Fill(ctx, c.Messages, c.Size, nil); err != nil {
		return 0, err
	}
	took, err := r.Drover(ctx, c.Messages, rig.Setup{Name: "http", URL: url, Events: events})
	return float64(c.Messages) / took.Seconds(), err
}
