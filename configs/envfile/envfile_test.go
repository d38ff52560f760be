package envfile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const text = "\ufeff# comment\n\nA=1\r\n  B = two words  \nexport C=x#y # comment\nD='a # b \\n $X' # c\n" +
		"E=\"a\\nb\\\"c\\\\ \\$X\"\nF=\nG=#\nexport\tH=a=b\nexportI=7\n_j2='it is \"quoted\"'\n"
	got, err := Parse(text)
	want := []Variable{
		{"A", "1", 3}, {"B", "two words", 4}, {"C", "x#y", 5}, {"D", `a # b \n $X`, 6}, {"E", "a\nb\"c\\ $X", 7},
		{"F", "", 8}, {"G", "", 9}, {"H", "a=b", 10}, {"exportI", "7", 11}, {"_j2", `it is "quoted"`, 12},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestLinesThatAreWrong(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"s3cret":            "line 2: it has no =; write NAME=VALUE",
		"export s3cret":     "it has no =",
		"my-name=s3cret":    "the name before = may only have letters",
		"1A=s3cret":         "may not begin with a digit",
		"=s3cret":           "the name before =",
		"B='s3cret":         "the ' is not closed on this line",
		`B="s3cret`:         `the " is not closed on this line; in double quotes, \n is a line break`,
		`B="s3cret" x`:      "there is text after the closing \"",
		`B='it's s3cret'`:   "there is text after the closing '",
		`B="s3cret\q"`:      `a \ in double quotes stands before n, r, t`,
		`B="s3cret\`:        `the value ends with a single \`,
		"B=s3cret\x00":      "it is not UTF-8",
		"B=s3cret\xff":      "it is not UTF-8",
		"A=s3cret":          "A is set twice; line 1 sets it, too",
		`B="s3cret\" open`:  `the " is not closed`,
		"export A = s3cret": "A is set twice",
	} {
		got, err := Parse("A=1\n" + line + "\nC=3\n")
		var of *Error
		if !errors.As(err, &of) || of.Line != 2 || !strings.Contains(err.Error(), want) || got != nil {
			t.Errorf("%q: %v; want %q", line, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: the message has the value: %v", line, err)
		}
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, []byte("A="+strings.Repeat("x", 70_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file", dir: "it is a directory; use a regular file", large: "more than 65536 bytes",
	} {
		if _, err := Read(path, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", path, err, want)
		}
	}
	good := filepath.Join(dir, "good")
	if err := os.WriteFile(good, []byte("A=1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read("good", dir); err != nil || !slices.Equal(got, []Variable{{"A", "1", 1}}) {
		t.Errorf("%v, %v", got, err)
	}
}
