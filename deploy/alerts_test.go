package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// The tests of the alert rules, and what those of the dashboard share with them.

// promtool runs Prometheus' own tool, and returns its output.
func promtool(t *testing.T, args ...string) (said string, err error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is missing; Debian's package prometheus has it")
		}
		t.Skip("promtool is missing: apt-get install prometheus")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

// metricNames finds the names of drover's metrics in a text.
var metricNames = regexp.MustCompile(`\bdrover_[a-z_]+`)

// documentedMetrics returns the metrics in docs/metrics.md. Another test compares them with the
// existing ones.
func documentedMetrics(t *testing.T) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `(drover_[a-z_]+)`").FindAllSubmatch(doc, -1) {
		out[string(m[1])] = true
	}
	if len(out) < 20 {
		t.Fatalf("only %d metrics are documented: is the pattern still right?", len(out))
	}
	return out
}

type alertRule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alertRules(t *testing.T) (rules []alertRule) {
	t.Helper()
	text, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []alertRule `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) < 10 {
		t.Fatalf("only %d alerts found", len(rules))
	}
	return rules
}

// checkMetricNames reports metrics of drover in an expression that docs/metrics.md does not have.
// It returns the number of drover's metrics.
func checkMetricNames(t *testing.T, where, expr string) (found int) {
	t.Helper()
	documented := documentedMetrics(t)
	for _, name := range metricNames.FindAllString(expr, -1) {
		found++
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if !documented[name] && !documented[base] {
			t.Errorf("%s names %s, which docs/metrics.md does not have", where, name)
		}
	}
	return found
}

// Each alert uses existing metrics, describes the problem, links to its remedy, and is tested both
// ways.
func TestAlerts(t *testing.T) {
	operations, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	tries, err := os.ReadFile("alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range alertRules(t) {
		names = append(names, r.Alert)
		if checkMetricNames(t, r.Alert, r.Expr) == 0 {
			t.Errorf("%s names no metric of drover: %s", r.Alert, r.Expr)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s has the severity %q", r.Alert, r.Labels["severity"])
		}
		for _, key := range []string{"summary", "description"} {
			if r.Annotations[key] == "" {
				t.Errorf("%s has no %s", r.Alert, key)
			}
		}
		page, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		if !strings.HasSuffix(page, "/docs/operations.md") || anchor != strings.ToLower(r.Alert) || !strings.Contains(string(operations), "\n### "+r.Alert+"\n") {
			t.Errorf("%s leads to %q: docs/operations.md has no such section", r.Alert, r.Annotations["runbook_url"])
		}
		for _, way := range []string{"fires", "rests"} {
			if !strings.Contains(string(tries), fmt.Sprintf("name: %s %s\n", r.Alert, way)) {
				t.Errorf("deploy/alerts_test.yaml does not try whether %s %s", r.Alert, way)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (Drover\w+)$`).FindAllSubmatch(operations, -1) {
		if !slices.Contains(names, string(m[1])) {
			t.Errorf("docs/operations.md says what to do about %s, which is not an alert", m[1])
		}
	}
}

func TestPromtoolTriesTheAlerts(t *testing.T) {
	if said, err := promtool(t, "check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, said)
	}
	if said, err := promtool(t, "test", "rules", "alerts_test.yaml"); err != nil || !strings.Contains(said, "SUCCESS") {
		t.Errorf("promtool test rules: %v\n%s", err, said)
	}
}
