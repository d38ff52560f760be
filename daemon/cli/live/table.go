package live

import (
	"fmt"
	"strings"

	"github.com/drover-run/drover/daemon/cli/term"
)

// Column is a column of a table.
type Column struct {
	Title string
	Right bool // aligned right, as numbers are
	// Drop orders the columns to leave out when the table is too wide: the highest goes first. A
	// column with 0 is never left out.
	Drop int
	// Min, if not 0, allows texts to be shortened to that many columns of the terminal before the
	// column is left out. Max, if not 0, is the maximum width of the column.
	Min, Max int
}

// Cell is the text of a row in one column. It must be printable, and a single line.
type Cell struct {
	Text  string
	Style term.Style
}

// Table is a table of texts: a header and rows. Every row has a cell for each column.
type Table struct {
	Columns []Column
	Rows    [][]Cell
	// Widths, if not nil, keeps the widths of the columns from one drawing to the next, by title,
	// so that columns do not move when a number becomes shorter.
	Widths map[string]int
	// Cursor, if not nil, is the index of the selected row: it is marked.
	Cursor *int
}

const (
	gap = 2 // columns of the terminal between two columns of a table
	// cursorMark marks the selected row, noMark the others. They take the same width.
	cursorMark = "▸ "
	noMark     = "  "
)

// Lines returns the table as lines of at most width columns. With width 0 there is no limit.
func (t *Table) Lines(width int, palette term.Palette) []string {
	marks := 0
	if t.Cursor != nil {
		marks = term.Columns(noMark)
	}
	widths := t.fit(width - marks)
	if width == 0 {
		widths = t.fit(0)
	}
	lines := make([]string, 0, len(t.Rows)+1)
	header := make([]Cell, len(t.Columns))
	for i, c := range t.Columns {
		header[i] = Cell{c.Title, term.Bold}
	}
	for n, row := range append([][]Cell{header}, t.Rows...) {
		selected := t.Cursor != nil && n == *t.Cursor+1
		line := t.line(row, widths, palette, selected)
		switch {
		case selected:
			line = palette.Apply(term.Reverse, term.PadRight(cursorMark+line, width))
		case t.Cursor != nil:
			line = noMark + line
		}
		lines = append(lines, line)
	}
	return lines
}

// line returns a row. Columns of width 0 are left out.
func (t *Table) line(row []Cell, widths []int, palette term.Palette, plain bool) string {
	var b strings.Builder
	spaces := 0 // written before the next text, so that no line ends with spaces
	for i, cell := range row {
		if widths[i] == 0 {
			continue
		}
		text := term.Truncate(cell.Text, widths[i])
		free := widths[i] - term.Columns(text)
		if t.Columns[i].Right {
			spaces, free = spaces+free, 0
		}
		if text != "" {
			b.WriteString(strings.Repeat(" ", spaces))
			spaces = 0
			if !plain {
				text = palette.Apply(cell.Style, text)
			}
			b.WriteString(text)
		}
		spaces += free + gap
	}
	return b.String()
}

// natural returns the widths of the columns without a limit.
func (t *Table) natural() []int {
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		widths[i] = term.Columns(c.Title)
		for _, row := range t.Rows {
			widths[i] = max(widths[i], term.Columns(row[i].Text))
		}
		if c.Max > 0 {
			widths[i] = min(widths[i], max(c.Max, term.Columns(c.Title)))
		}
		if t.Widths != nil {
			widths[i] = max(widths[i], t.Widths[c.Title])
			t.Widths[c.Title] = widths[i]
		}
	}
	return widths
}

// fit returns the widths of the columns that fit in width; 0 for those left out.
func (t *Table) fit(width int) []int {
	widths := t.natural()
	if width <= 0 {
		return widths
	}
	for {
		over := excess(widths, width)
		if over <= 0 {
			return widths
		}
		slack := 0
		for i, c := range t.Columns {
			if c.Min > 0 {
				slack += max(widths[i]-c.Min, 0)
			}
		}
		if slack >= over {
			t.shorten(widths, over, func(c Column) int { return c.Min })
			return widths
		}
		drop := -1
		for i, c := range t.Columns {
			if widths[i] > 0 && c.Drop > 0 && (drop < 0 || c.Drop > t.Columns[drop].Drop) {
				drop = i
			}
		}
		if drop < 0 { // a very narrow terminal
			t.shorten(widths, over, func(Column) int { return 1 })
			return widths
		}
		widths[drop] = 0
	}
}

// excess returns how much wider the columns are than width.
func excess(widths []int, width int) int {
	sum, n := 0, 0
	for _, w := range widths {
		if w > 0 {
			sum += w
			n++
		}
	}
	return sum + gap*max(n-1, 0) - width
}

// shorten makes columns narrower by a total of over, if possible: at each step the column with the most
// room above its minimum width.
func (t *Table) shorten(widths []int, over int, least func(Column) int) {
	for ; over > 0; over-- {
		widest, most := -1, 0
		for i, c := range t.Columns {
			if slack := widths[i] - least(c); least(c) > 0 && slack > most {
				widest, most = i, slack
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}

// cursorUp moves the cursor up.
func cursorUp(n int) string { return fmt.Sprintf("\x1b[%dA", n) }
