package speed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/configs"

	"github.com/drover-run/drover/bench/rig"
)

// CostCommand measures the cost of observation: the Go no-op with its metrics scraped and its
// traces on, but unsampled, compared with the same with everything off. Each round runs both, in
// alternating order.
type CostCommand struct {
	Rounds   int           `default:"15" help:"Rounds; each runs both, in an order that turns."`
	Messages int           `default:"300000" help:"Messages for each of both and each round."`
	Size     int           `default:"128" help:"Bytes of a message."`
	Every    time.Duration `default:"1s" help:"How often the metrics are scraped."`
	Parents  bool          `help:"Messages have a trace that is not sampled; else none."`
	JSON     bool          `help:"Print one JSON object instead of the text."`
}

// maxCost is the target.
const maxCost = 0.03

// unsampledParent is a trace context that is not sampled.
const unsampledParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

type costFigures struct {
	Off     float64 `json:"off_per_second"` // medians
	On      float64 `json:"on_per_second"`
	Cost    float64 `json:"cost"` // the median of the rounds' own: 1 - on ÷ off
	Least   float64 `json:"cost_least"`
	Most    float64 `json:"cost_most"`
	Scrapes int64   `json:"scrapes"`
	Spans   int64   `json:"span_requests"` // must be 0
}

func (c *CostCommand) Run(ctx context.Context) (err error) {
	if c.Rounds < 1 || c.Messages < 1 || c.Size < 0 || c.Every <= 0 {
		return errors.New("--rounds and --messages must be at least 1, --size at least 0, --every more than 0s")
	}
	r, err := rig.New(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var attributes map[string]string
	if c.Parents {
		attributes = map[string]string{"traceparent": unsampledParent}
	}
	if err := r.Fill(ctx, c.Messages, c.Size, attributes); err != nil {
		return fmt.Errorf("filling the stream: %w", err)
	}
	var out costFigures
	var requests atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer collector.Close()
	none := 0.0
	setups := []rig.Setup{
		{Name: "off", Change: func(c *configs.Config) { c.Admin.Listen, c.Traces.Endpoint = "off", "off" }},
		{Name: "on", Change: func(c *configs.Config) { c.Traces.Endpoint, c.Traces.Sample = collector.URL, &none }},
	}
	rates := make(map[string][]float64)
	for round := range c.Rounds {
		for i := range setups {
			s := setups[(i+round)%len(setups)]
			stop := func() int64 { return 0 }
			if s.Name == "on" {
				stop = scrape(filepath.Join(r.Dir, "daemon", "admin.sock"), c.Every)
			}
			took, err := r.Drover(ctx, c.Messages, s)
			out.Scrapes += stop()
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			rate := float64(c.Messages) / took.Seconds()
			fmt.Fprintf(os.Stderr, "round %d of %d: %s %.0f/s\n", round+1, c.Rounds, s.Name, rate)
			rates[s.Name] = append(rates[s.Name], rate)
		}
	}
	var costs []float64
	for i, off := range rates["off"] {
		costs = append(costs, 1-rates["on"][i]/off)
	}
	out.Off, out.On, out.Cost, out.Spans = rig.Median(rates["off"]), rig.Median(rates["on"]), rig.Median(costs), requests.Load()
	out.Least, out.Most = slices.Min(costs), slices.Max(costs)
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(out)
	}
	fmt.Printf("%d messages of %d bytes, medians of %d rounds, %d cores, %s\n", c.Messages, c.Size, c.Rounds, runtime.NumCPU(), runtime.Version())
	fmt.Printf("off %.0f/s, on %.0f/s; the cost is %.1f %% (%.1f to %.1f), to be at most %.0f %%\n", out.Off, out.On, 100*out.Cost, 100*out.Least, 100*out.Most, 100*maxCost)
	fmt.Printf("scraped %d times; spans were sent %d times\n", out.Scrapes, out.Spans)
	return nil
}

// scrape reads the metrics of the daemon behind a socket at intervals until stop is called, which
// returns the number of successful reads.
func scrape(socket string, every time.Duration) (stop func() int64) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	ctx, cancel := context.WithCancel(context.Background())
	var scrapes int64
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			if scraped(ctx, client) == nil {
				scrapes++
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() int64 {
		cancel()
		running.Wait()
		client.CloseIdleConnections()
		return scrapes
	}
}

func scraped(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://drover/metrics", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err // it is not up yet
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}
