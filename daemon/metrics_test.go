package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/triggers"
)

// descriptions returns the descriptions of all of drover's metrics, as texts.
func descriptions(d *Daemon) (out []string) {
	to := make(chan *prometheus.Desc, 1000)
	for _, c := range status.NewCollectors(d.statusView()) {
		c.Describe(to)
	}
	close(to)
	for d := range to {
		if text := d.String(); strings.Contains(text, `fqName: "drover_`) {
			out = append(out, text)
		}
	}
	return out
}

func testDecision() scaler.Decision {
	return scaler.Decision{
		Wanted: 3, Current: 1, Raw: 5, Bound: scaler.BoundMax, Policy: &scaler.Policy{Max: 3},
		Signals: scaler.Signals{Loads: []scaler.Load{{Function: "f", Backlog: 12, Arrivals: 2.5, Capacity: 4, Busy: 0.5}}},
	}
}

// A scrape as Protocol Buffers has histograms in both forms.
func TestNativeHistograms(t *testing.T) {
	_, queue, cfg := adminDaemon(t, nil)
	const n = 10
	for range n {
		queue.Send(triggers.Message{})
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		families := scrape(t, admin.SocketPath(cfg.DataDir))
		handle, age := families["drover_handle_seconds"].Metric[0].Histogram, families["drover_message_age_seconds"].Metric[0].Histogram
		if age.GetSampleCount() < n {
			if time.Now().After(deadline) {
				t.Fatalf("%d ages, want %d", age.GetSampleCount(), n)
			}
			continue
		}
		for _, h := range []*dto.Histogram{handle, age} {
			if h.GetSampleCount() != n || len(h.Bucket) < 10 || h.GetSchema() != 4 || len(h.PositiveSpan) == 0 && h.GetZeroCount() == 0 {
				t.Errorf("a histogram is %v", h)
			}
		}
		return
	}
}
