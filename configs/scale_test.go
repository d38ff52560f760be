package configs

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/scaler"
)

func TestScaleBecomesAPolicy(t *testing.T) {
	c, err := parse(t, minimal+`
scale:
  max_age: 1m
  utilisation: 0.8
  min_gain: 0.2
  forecast: "off"
  idle: 1m
  activation: 7
  max_step: 3
  fallback: 4
  interval: 10s
  timezone: Europe/Berlin
  instances: {min: 0, max: 9}
  workers: {min: 0}
  schedules:
    - {from: "22:00", to: "06:30", days: [fri, sun], min: 5}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := scaler.Policy{
		Min: 0, Max: 9, MaxAge: time.Minute, Utilisation: 0.8, MaxStep: 3, Idle: time.Minute, Activation: 7,
		MinGain: 0.2, Fallback: 4, FallbackAfter: time.Minute, Interval: 10 * time.Second,
		Schedules: []scaler.Schedule{{From: 22 * time.Hour, To: 6*time.Hour + 30*time.Minute, Days: []time.Weekday{time.Friday, time.Sunday}, Min: 5}},
	}
	got := c.Scale.InstancePolicy()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the policy is %+v,\nwant %+v", got, want)
	}
	if err := got.Check(); err != nil {
		t.Error(err)
	}
	workers := c.Scale.WorkerPolicy(8)
	if workers.Min != 0 || workers.Max != 8 || workers.MaxAge != time.Minute || workers.Interval != time.Second || workers.Schedules != nil {
		t.Errorf("the workers' policy is %+v", workers)
	}
	if c.Scale.Location().String() != "Europe/Berlin" {
		t.Errorf("the time zone is %v", c.Scale.Location())
	}
}

func TestScaleDefaults(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "one instance; workers so that a backlog is cleared within 30s",
		"scale: {instances: external}":      "external scaling of instances; workers so that a backlog is cleared within 30s",
		"scale: {instances: {max: 4}}":      "1 to 4 instances, so that a backlog is cleared within 30s",
		"scale: {instances: {min: 0}}":      "0 to 1 instances, so that a backlog is cleared within 30s",
		"scale: {max_age: 90s}":             "one instance; workers so that no message waits for more than 1m30s",
		"scale: {per_instance: 5}":          "one instance; workers so that 5 messages wait for each instance",
		"scale: {instances: '${N:-}'}":      "",
		"scale: {instances: {max: '${N}'}}": "1 to 4 instances, so that a backlog is cleared within 30s",
		"scale: {instances: 4}":             "",
		"scale: {instances: {Max: 4}}":      "",
		"scale: {instances: [external]}":    "",
		"scale: {instances: {max: 10001}}":  "",
	} {
		c, err := parse(t, minimal+text+"\n", "N=4")
		if want == "" {
			if err == nil {
				t.Errorf("%s: it loads", text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := c.Scale.String(); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
		p := c.Scale.InstancePolicy()
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		p = c.Scale.WorkerPolicy(2)
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestSimulationFile(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	s, err := LoadSimulation(write("scale: {max_age: 45s, instances: {min: 2, max: 50}}\nmodel: {service_time: 2s, slots: 8, downstream: 99.5}\n"), environment())
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.SimModel()
	if err != nil || m.Service != 2*time.Second || m.Slots != 8 || m.Downstream != 99.5 || m.MaxAge != 45*time.Second || m.Min != 2 || m.Max != 50 || m.StartUp != 5*time.Second {
		t.Errorf("the model is %+v, %v", m, err)
	}
	for text, want := range map[string]string{
		"scale: {instances: {max: 1}}\n":                                "nothing scales: set instances",
		"scale: {clear_within: 10s, max_age: 45s, instances: {max: 5}}": "set only one target",
		"scale: {instances: {max: 5}}\nmodel: {slots: 0}":               "model.slots is 0; the minimum",
		"models: {}": "did you mean model?",
		"scale: {instances: {max: 5}, max_age: 10ms}": "",
	} {
		s, err := LoadSimulation(write(text), environment())
		if want == "" && err == nil {
			_, err = s.SimModel()
			want = "max_age is 10ms; at least 1s can be simulated"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := LoadSimulation(filepath.Join(t.TempDir(), "none.yaml"), environment()); err == nil {
		t.Error("a file that is not there loads")
	}
}
