package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-run/drover/scaler"
)

// descriptions are those of all metrics, as texts.
func descriptions(m *metrics) (out []string) {
	to := make(chan *prometheus.Desc, 100)
	m.Describe(to)
	close(to)
	for d := range to {
		out = append(out, d.String())
	}
	return out
}

func testDecision() scaler.Decision {
	return scaler.Decision{Wanted: 3, Current: 1, Bound: scaler.BoundMax, Policy: &scaler.Policy{Max: 3}}
}
