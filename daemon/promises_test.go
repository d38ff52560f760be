package daemon

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// promise finds the tests that docs/delivery.md names: `TestName` in `folder`.
var promise = regexp.MustCompile("`(Test[A-Za-z0-9_]+)` in `([a-z/]+)`")

// TestPromisesHaveTests checks that each test that docs/delivery.md names exists where
// the page says, and that every line of its tables names one.
func TestPromisesHaveTests(t *testing.T) {
	text, err := os.ReadFile("../docs/delivery.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string]string) // the test files of a folder
	for _, m := range promise.FindAllStringSubmatch(string(text), -1) {
		name, folder := m[1], m[2]
		if _, known := tests[folder]; !known {
			files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				source, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				tests[folder] += string(source)
			}
		}
		if !strings.Contains(tests[folder], "\nfunc "+name+"(") {
			t.Errorf("docs/delivery.md names %s in %s, which does not exist", name, folder)
		}
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") || strings.HasPrefix(line, "| guarantee") {
			continue
		}
		rows++
		if !promise.MatchString(line) {
			t.Errorf("docs/delivery.md has a guarantee without a test: %s", line)
		}
	}
	if rows < 20 {
		t.Errorf("docs/delivery.md has only %d guarantees: does the pattern still match?", rows)
	}
}
