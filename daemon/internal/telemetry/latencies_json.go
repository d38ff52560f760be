package telemetry

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// latenciesJSON is the JSON form of Latencies: quantiles for people, and the buckets that they
// were computed from, so that programs can add and subtract.
type latenciesJSON struct {
	Count uint64  `json:"count" desc:"number of attempts"`
	P50   float64 `json:"p50_seconds" desc:"median duration, accurate to a sixteenth"`
	P90   float64 `json:"p90_seconds"`
	P99   float64 `json:"p99_seconds"`
	// Steps has the buckets that are not empty, by their number.
	Steps map[string]uint64 `json:"steps" desc:"counts by step of the duration; 16 steps per octave"`
}

// MarshalJSON implements json.Marshaler.
func (l *Latencies) MarshalJSON() ([]byte, error) {
	out := latenciesJSON{
		Count: l.Count(), Steps: make(map[string]uint64),
		P50: l.Quantile(0.5).Seconds(), P90: l.Quantile(0.9).Seconds(), P99: l.Quantile(0.99).Seconds(),
	}
	for step, n := range l {
		if n > 0 {
			out.Steps[strconv.Itoa(step)] = n
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *Latencies) UnmarshalJSON(text []byte) error {
	var in latenciesJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*l = Latencies{}
	for number, n := range in.Steps {
		step, err := strconv.Atoi(number)
		if err != nil || step < 0 || step >= latencySteps {
			return fmt.Errorf("latencies have no step %q", number)
		}
		l[step] = n
	}
	return nil
}

// JSONSchemaAlias makes the JSON Schema describe the JSON form.
func (Latencies) JSONSchemaAlias() any { return latenciesJSON{} }
