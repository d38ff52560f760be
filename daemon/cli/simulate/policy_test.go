package simulate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func noEnvironment(string) (string, bool) { return "", false }

func TestPolicyFile(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p, err := loadPolicy(write("scale: {max_age: 45s, instances: {min: 2, max: 50}}\nmodel: {service_time: 2s, slots: 8, downstream: 99.5}\n"), noEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.simModel()
	if err != nil || m.Service != 2*time.Second || m.Slots != 8 || m.Downstream != 99.5 || m.MaxAge != 45*time.Second || m.Min != 2 || m.Max != 50 || m.StartUp != 5*time.Second {
		t.Errorf("the model is %+v, %v", m, err)
	}
	for text, want := range map[string]string{
		"scale:\n  max_age: 45s\n  instances: {max: 1}\n":               "policy.yaml:2:3: scale: nothing scales",
		"scale: {instances: {max: 1}}\n":                                "nothing scales: set instances",
		"scale: {clear_within: 10s, max_age: 45s, instances: {max: 5}}": "set only one target",
		"scale: {instances: {max: 5}}\nmodel: {slots: 0}":               "model.slots is 0; the minimum",
		"models: {}": "did you mean model?",
		"scale: {instances: {max: 5}, max_age: 10ms}": "",
	} {
		p, err := loadPolicy(write(text), noEnvironment)
		if want == "" && err == nil {
			_, err = p.simModel()
			want = "max_age is 10ms; at least 1s can be simulated"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := loadPolicy(filepath.Join(t.TempDir(), "none.yaml"), noEnvironment); err == nil {
		t.Error("a file that is not there loads")
	}
}
