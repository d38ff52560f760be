package term

import (
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
	xterm "golang.org/x/term"
)

// Size returns the size of the terminal that an output writes to, in columns and rows. ok is false for
// an output that has no Fd method, unlike *os.File, is not a terminal, or has no known size. Size
// queries the terminal each time, so the result follows a resize.
func Size(out any) (columns, rows int, ok bool) {
	file, isFile := out.(interface{ Fd() uintptr })
	if !isFile {
		return 0, 0, false
	}
	columns, rows, err := xterm.GetSize(int(file.Fd()))
	if err != nil || columns < 1 || rows < 1 {
		return 0, 0, false
	}
	return columns, rows, true
}

// Width returns the columns of the terminal that an output writes to; 0 if it is not a terminal.
func Width(out any) int {
	columns, _, _ := Size(out)
	return columns
}

// Columns returns the width of a text in columns of a terminal: a wide character takes two, a combining
// one none. The text must not have control characters.
func Columns(text string) int { return runewidth.StringWidth(text) }

// Truncate returns a text of at most n columns. A longer text ends with "…".
func Truncate(text string, n int) string {
	if n < 1 {
		return ""
	}
	if Columns(text) <= n {
		return text
	}
	return runewidth.Truncate(text, n, "…")
}

// PadRight returns a text of exactly n columns: truncated, or with spaces after it.
func PadRight(text string, n int) string {
	text = Truncate(text, n)
	return text + strings.Repeat(" ", max(n-Columns(text), 0))
}

// PadLeft returns a text of exactly n columns: truncated, or with spaces before it.
func PadLeft(text string, n int) string {
	text = Truncate(text, n)
	return strings.Repeat(" ", max(n-Columns(text), 0)) + text
}

// Wrap breaks a text at spaces into lines of at most n columns, n at least 1. Words that are
// longer are broken. Lines after the first start with indent.
func Wrap(text string, n int, indent string) (lines []string) {
	if Columns(indent) >= n {
		indent = ""
	}
	line, empty := "", true
	for word := range strings.FieldsSeq(text) {
		if !empty && Columns(line)+1+Columns(word) <= n {
			line += " " + word
			continue
		}
		if !empty {
			lines = append(lines, line)
			line = indent
		}
		for Columns(line)+Columns(word) > n {
			head := runewidth.Truncate(word, n-Columns(line), "")
			if head == "" { // a wide character in a single column
				break
			}
			lines = append(lines, line+head)
			line, word = indent, word[len(head):]
		}
		line, empty = line+word, false
	}
	return append(lines, line)
}

// Print writes a text to an output, folded to the width of its terminal if it has one. The text must be
// Printable.
func Print(out io.Writer, text string) error {
	_, err := io.WriteString(out, Fold(text, Width(out)))
	return err
}

// Fold breaks the lines of a text at spaces, so that they have at most n columns; 0 is no limit. Further
// lines begin below the text of the first: behind its "- ", or behind a label that two spaces end, or
// else two columns to the right of it. A word that is too long for a line stays whole, so that it can be
// copied from a terminal.
func Fold(text string, n int) string {
	if n <= 0 {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		body := strings.TrimSuffix(line, "\n")
		if Columns(body) <= n {
			b.WriteString(line)
			continue
		}
		b.WriteString(foldLine(body, n))
		b.WriteString(line[len(body):])
	}
	return b.String()
}

func foldLine(line string, n int) string {
	start := len(line) - len(strings.TrimLeft(line, " ")) // where the text begins
	hanging := start + 2
	if strings.HasPrefix(line[start:], "- ") {
		start = hanging
	} else if label, _, found := strings.Cut(line[start:], "  "); found {
		end := start + len(label)
		behind := end + len(line[end:]) - len(strings.TrimLeft(line[end:], " "))
		if at := Columns(line[:behind]); at <= n/2 {
			start, hanging = behind, at
		}
	}
	if hanging > n/2 {
		hanging = 0
	}
	var b strings.Builder
	b.WriteString(line[:start])
	column, empty := Columns(line[:start]), true
	for word := range strings.FieldsSeq(line[start:]) {
		switch width := Columns(word); {
		case empty:
		case column+1+width <= n:
			b.WriteByte(' ')
			column++
		default:
			b.WriteString("\n" + strings.Repeat(" ", hanging))
			column = hanging
		}
		b.WriteString(word)
		column, empty = column+Columns(word), false
	}
	return b.String()
}
