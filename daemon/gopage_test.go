package daemon_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestGoPage checks that each snippet of docs/go.md is part of code that tests compile and run: examples,
// the tests of drovertest, or the project that drover init go writes.
func TestGoPage(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, file := range []string{
		"example_test.go", "../handlers/example_test.go", "drovertest/drovertest_test.go",
		"cli/scaffold/projects/go/main.go.tmpl", "cli/scaffold/projects/go/main_test.go.tmpl",
	} {
		code.WriteString(unindented(t, file))
	}
	page, err := os.ReadFile("../docs/go.md")
	if err != nil {
		t.Fatal(err)
	}
	snippets := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(snippets) < 15 {
		t.Errorf("only %d snippets", len(snippets))
	}
	for _, snippet := range snippets {
		if !strings.Contains(code.String(), withoutIndent(snippet[1])) {
			t.Errorf("docs/go.md has code that no test runs:\n%s", snippet[1])
		}
	}
}

func unindented(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return withoutIndent(string(text))
}

// withoutIndent returns a text without the tabs at the beginning of its lines.
func withoutIndent(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(strings.TrimLeft(line, "\t"))
	}
	return out.String()
}
