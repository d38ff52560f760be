package dashboard

import (
	"fmt"
	"strings"

	"github.com/drover-run/drover/daemon/cli/deadletter"
	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/triggers"
)

// MaxLetters bounds the dead letters shown, to the number that every source returns without changing
// its state.
const MaxLetters = deadletter.PeekPage

// page is shown instead of the table.
type page interface {
	// pageLines returns the page for a size of the terminal.
	pageLines(columns, rows int, palette term.Palette) []string
	// pressKey handles a key. It returns the page that is shown next; nil returns to the table.
	pressKey(key live.Key) page
	// keyHelp returns its keys, for the last line.
	keyHelp() string
}

// moveCursor returns the row to which a key moves a cursor in n rows.
func moveCursor(key live.Key, at, n int) (to int, moved bool) {
	const page = 10
	switch key {
	case live.KeyUp, "k":
		at--
	case live.KeyDown, "j":
		at++
	case live.KeyPageUp:
		at -= page
	case live.KeyPageDown, " ":
		at += page
	case live.KeyHome, "g":
		at = 0
	case live.KeyEnd, "G":
		at = n - 1
	default:
		return at, false
	}
	return max(min(at, n-1), 0), true
}

// window returns at most n of the lines, including the one at the cursor.
func window(lines []string, cursor, n int) []string {
	from := max(min(cursor-n/2, len(lines)-n), 0)
	return lines[from:min(from+n, len(lines))]
}

// textPage shows a text, which may be longer than the screen.
type textPage struct {
	title, text string
	from        int  // the first line that is shown
	back        page // shown after it
}

func (*textPage) keyHelp() string { return "esc back  ↑↓ scroll  ctrl-c quit" }

func (p *textPage) pageLines(columns, rows int, palette term.Palette) []string {
	lines := []string{palette.Apply(term.Bold, term.Truncate(term.OneLine(p.title, 500), columns))}
	var text []string
	for line := range strings.SplitSeq(strings.TrimRight(term.Printable(p.text), "\n"), "\n") {
		text = append(text, wrapIndented(line, columns)...)
	}
	from := max(min(p.from, len(text)-(rows-len(lines))), 0)
	return live.CutLines(append(lines, text[from:]...), rows)
}

// wrapIndented wraps a line and keeps its indent. A line that fits keeps its spaces, too.
func wrapIndented(line string, columns int) []string {
	line = strings.ReplaceAll(line, "\t", "    ")
	if term.Columns(line) <= columns {
		return []string{line}
	}
	indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
	lines := term.Wrap(line, columns, indent+"  ")
	if term.Columns(indent)+term.Columns(lines[0]) <= columns {
		lines[0] = indent + lines[0]
	}
	return lines
}

func (p *textPage) pressKey(key live.Key) page {
	if key == live.KeyEscape || key == "q" || key == live.KeyEnter {
		return p.back
	}
	next := *p
	next.from, _ = moveCursor(key, p.from, strings.Count(p.text, "\n")+1)
	return &next
}

// lettersPage lists dead letters.
type lettersPage struct {
	function string
	letters  []triggers.DeadLetter // at least one
	cursor   int
}

func (*lettersPage) keyHelp() string { return "esc back  ↑↓ move  enter show  ctrl-c quit" }

func (p *lettersPage) pageLines(columns, rows int, palette term.Palette) []string {
	title := fmt.Sprintf("Dead letters of %s: %d", p.function, len(p.letters))
	if len(p.letters) == MaxLetters {
		title = fmt.Sprintf("The first %d dead letters of %s; drover dead list %s --limit 0 prints all", MaxLetters, p.function, p.function)
	}
	cursor := p.cursor
	table := deadletter.NewTable(p.letters, true)
	table.Cursor = &cursor
	lines := table.Lines(columns, palette)
	return append([]string{palette.Apply(term.Bold, term.Truncate(title, columns)), lines[0]}, window(lines[1:], cursor, max(rows-2, 1))...)
}

func (p *lettersPage) pressKey(key live.Key) page {
	switch key {
	case live.KeyEscape, "q":
		return nil
	case live.KeyEnter:
		letter := p.letters[p.cursor]
		again := fmt.Sprintf("\nTo replay it: drover dead replay %s %s\n", p.function, letter.ID)
		return &textPage{title: "Dead letter " + letter.ID, text: deadletter.FullText(letter) + again, back: p}
	}
	next := *p
	next.cursor, _ = moveCursor(key, p.cursor, len(p.letters))
	return &next
}
