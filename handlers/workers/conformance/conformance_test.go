package conformance

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRulesAreInTheDocument holds that no check asks for what the contract does not say.
func TestRulesAreInTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/worker-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	document := strings.Join(strings.Fields(string(text)), " ")
	rules := []string{ruleSizes, ruleLog, ruleOpen, ruleOne, ruleLogIDs, ruleStats, ruleLogTo, ruleEnds, ruleOutcome}
	for _, c := range checks() {
		rules = append(rules, c.rule)
	}
	for _, rule := range rules {
		if rule == "" || !strings.Contains(document, rule) {
			t.Errorf("docs/worker-protocol.md does not say: %q", rule)
		}
	}
}

// TestFunctionsAreInTheDocument holds that the document says what each function of a
// test app does.
func TestFunctionsAreInTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/worker-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range functions {
		if !strings.Contains(string(text), "\n| `"+f+"` |") {
			t.Errorf("docs/worker-protocol.md does not say what %s does", f)
		}
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := make(map[string]bool)
	for _, name := range Names(Target{}) {
		if seen[name] {
			t.Errorf("two checks are called %s", name)
		}
		seen[name] = true
	}
}
