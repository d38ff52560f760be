package deadletter

import (
	"testing"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]float64{"100/s": 100, "100": 100, "30/m": 0.5, "36/h": 0.01} {
		if got, err := parseRate(text); err != nil || float64(got.Limit())-want > 1e-9 || want-float64(got.Limit()) > 1e-9 {
			t.Errorf("%q: %v", text, err)
		}
	}
}
