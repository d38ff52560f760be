package scaling

import (
	"reflect"
	"testing"
	"time"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/scaler"
)

// parse reads a file with the key scale.
func parse(text string) (Scale, error) {
	var file struct {
		Scale Scale `yaml:"scale"`
	}
	env := func(name string) (string, bool) { return "4", name == "N" }
	s := problems.New("x.yaml", []byte(text), ".", env)
	decode.Defaults(&file)
	decode.Document(s, &file, nil)
	if err := s.Err(); err != nil {
		return file.Scale, err
	}
	file.Scale.Complete(s, "scale")
	return file.Scale, s.Err()
}

func TestScaleBecomesAPolicy(t *testing.T) {
	c, err := parse(`
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
	got := c.InstancePolicy()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the policy is %+v,\nwant %+v", got, want)
	}
	if err := got.Check(); err != nil {
		t.Error(err)
	}
	workers := c.WorkerPolicy(8)
	if workers.Min != 0 || workers.Max != 8 || workers.MaxAge != time.Minute || workers.Interval != time.Second || workers.Schedules != nil {
		t.Errorf("the workers' policy is %+v", workers)
	}
	if c.Location().String() != "Europe/Berlin" {
		t.Errorf("the time zone is %v", c.Location())
	}
}

func TestScaleDefaults(t *testing.T) {
	for text, want := range map[string]string{
		"scale: {}":                         "one instance; workers so that a backlog is cleared within 30s",
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
		c, err := parse("# a file\n" + text + "\n")
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
		if got := c.String(); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
		p := c.InstancePolicy()
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		p = c.WorkerPolicy(2)
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
