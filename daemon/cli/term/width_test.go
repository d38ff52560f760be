package term

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestWidths(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Truncate("orders", 6), "orders"},
		{Truncate("orders", 5), "orde…"},
		{Truncate("orders", 1), "…"},
		{Truncate("orders", 0), ""},
		{Truncate("注文キュー", 6), "注文…"}, // each takes two columns
		{Truncate("e\u0301e\u0301e\u0301", 3), "e\u0301e\u0301e\u0301"},
		{PadRight("ab", 4), "ab  "},
		{PadRight("注文", 5), "注文 "},
		{PadRight("注文", 3), "注…"},
		{PadLeft("17", 4), "  17"},
		{PadLeft("注文", 5), " 注文"},
		{PadLeft("12345", 3), "12…"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	if n := Columns("a注e\u0301"); n != 4 {
		t.Errorf("%d columns, want 4", n)
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text   string
		n      int
		indent string
		want   []string
	}{
		{"", 10, "", []string{""}},
		{"one two three", 20, "", []string{"one two three"}},
		{"one two three", 8, "  ", []string{"one two", "  three"}},
		{"one abcdefghij", 6, " ", []string{"one", " abcde", " fghij"}},
		{"abcdefgh", 3, "    ", []string{"abc", "def", "gh"}},
		{"注文", 1, "", []string{"注文"}}, // cannot fit
		{"注文", 3, "", []string{"注", "文"}},
	} {
		if got := Wrap(c.text, c.n, c.indent); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q in %d columns: %q, want %q", c.text, c.n, got, c.want)
		}
	}
	for _, line := range Wrap(strings.Repeat("some words ", 50), 17, "  ") {
		if Columns(line) > 17 {
			t.Errorf("%q has %d columns", line, Columns(line))
		}
	}
}

func TestFold(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"one two three four\n", 0, "one two three four\n"},
		{"", 10, ""},
		{"one two\nthree", 10, "one two\nthree"},
		{"one two three four\n", 10, "one two\n  three\n  four\n"},
		{"one two  three four", 100, "one two  three four"},
		{"  - one two three\n  - four\n", 12, "  - one two\n    three\n  - four\n"},
		{"  trigger    consumer orders of stream orders\n", 32, "  trigger    consumer orders of\n             stream orders\n"},
		{"a label that is long  one two three", 20, "a label that is long\n  one two three"},
		{"see https://example.com/a/long/path here", 16, "see\n  https://example.com/a/long/path\n  here"},
		{"        far to the right of it", 14, "        far to\nthe right of\nit"},
	} {
		if got := Fold(c.text, c.n); got != c.want {
			t.Errorf("%q in %d columns: %q, want %q", c.text, c.n, got, c.want)
		}
	}
}

func TestSizeOfNoTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, out := range []any{file, new(bytes.Buffer), nil} {
		if columns, rows, ok := Size(out); ok {
			t.Errorf("%T: %d × %d", out, columns, rows)
		}
	}
}
