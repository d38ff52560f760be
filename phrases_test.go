package main

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// phrases are replaced by the field's terms, such as reported, leased, released, fixed,
// honored, without using an attempt, continues, exists, in transit.
var phrases = regexp.MustCompile(`(?i)\b(?:` + strings.Join([]string{
	"told", "tells", "lent", "lends", "on loan", "(?:give|gives|gave|given|giving) back", "mend", "mends", "mended", "heeded", "uncharged",
	"(?:go|goes|went) on", "what there is", "that there (?:is|are)", "what is there", "of ours", "on (?:its|their) way",
	"handed (?:out|on)", "held ready", "kept apart", "worked off", "it is said",
	"in place of", "but for", "whoever", "in vain", "of no use", "letter case", "(?:is|are|was|were) (?:that|those) of",
}, "|") + `)\b`)

var (
	markdownCode = regexp.MustCompile("(?s)```.*?\n\\s*```|`[^`\n]*`")
	pythonText   = regexp.MustCompile(`(?s)""".*?"""|'''.*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*`)
)

// TestPhrases keeps phrases out of the project's text: Markdown files without their code, comments
// and string literals of Go and Python, including the help texts, and JavaScript.
func TestPhrases(t *testing.T) {
	for _, file := range textFiles(t) {
		text := readFile(t, file)
		switch filepath.Ext(file) {
		case ".md":
			text = markdownCode.ReplaceAllString(text, "")
		case ".go":
			text = goText([]byte(text))
		case ".py":
			text = strings.Join(pythonText.FindAllString(text, -1), "\n")
		}
		checkPhrases(t, file, text)
	}
}

func checkPhrases(t *testing.T, file, text string) {
	t.Helper()
	for _, found := range phrases.FindAllStringIndex(text, -1) {
		from, to := max(0, found[0]-40), min(len(text), found[1]+40)
		t.Errorf("%s: %q in %q: use the field's term", file, text[found[0]:found[1]], text[from:to])
	}
}

// textFiles are the Markdown, Go, Python and JavaScript files of the project.
func textFiles(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "bin"):
			return filepath.SkipDir
		case !entry.IsDir() && path != "phrases_test.go" && slices.Contains([]string{".md", ".go", ".py", ".js", ".mjs"}, filepath.Ext(name)):
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 100 {
		t.Fatalf("only %d files", len(files))
	}
	return files
}

// goText is the text of comments and string literals.
func goText(source []byte) string {
	var text strings.Builder
	var s scanner.Scanner
	s.Init(token.NewFileSet().AddFile("", -1, len(source)), source, nil, scanner.ScanComments)
	for {
		_, tok, literal := s.Scan()
		if tok == token.EOF {
			return text.String()
		}
		switch tok {
		case token.COMMENT:
			// A phrase may continue on the next line of a comment.
			text.WriteString(" " + strings.TrimPrefix(literal, "// "))
		case token.STRING:
			text.WriteString("\n" + literal + "\n")
		}
	}
}

func TestPhrasePattern(t *testing.T) {
	for text, want := range map[string]int{
		"It is told, and goes on.": 2, "retold, excellent": 0, "Given back, of ours": 2, "of oursins": 0, "What there is": 1, "one that mends": 1,
		"In place of those, the error is that of Parse, but for whoever": 4,
	} {
		if got := len(phrases.FindAllString(text, -1)); got != want {
			t.Errorf("%s: %d phrases, want %d", text, got, want)
		}
	}
	if got := markdownCode.ReplaceAllString("a `told` b\n```\ntold\n```\nc", ""); strings.Contains(got, "told") || !strings.Contains(got, "c") {
		t.Errorf("code is not ignored: %q", got)
	}
	if got := goText([]byte("package a\n\n// It goes\n// on.\nvar told = \"lent\"\n")); strings.Contains(got, "told") || len(phrases.FindAllString(got, -1)) != 2 {
		t.Errorf("text of Go code: %q", got)
	}
	if got := pythonText.FindAllString("told = 'lent'  # mended\n", -1); !slices.Equal(got, []string{"'lent'", "# mended"}) {
		t.Errorf("text of Python code: %q", got)
	}
}
