package dashboard

import (
	"fmt"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/daemon/cli/term"
)

// tableHelp has the keys of the table, most important first: a narrow terminal shows only those that
// fit.
const tableHelp = "q quit  ↑↓ move  p pause  r resume  d dead letters  / filter  enter explain  ? help"

// draw shows the page or the table, with a last line for the prompt, the notice or the keys. It
// copies the state, because the frame calls the view again after a resize, from another goroutine.
func (d *dashboard) draw() {
	last, style := tableHelp, term.Dim
	switch {
	case d.prompt != nil:
		last, style = term.Printable(d.prompt.label+d.prompt.text)+"▏", term.Plain
	case d.notice != "":
		last, style = term.OneLine(d.notice, 1000), term.Yellow
	case d.page != nil:
		last = d.page.keyHelp()
	}
	isPrompt, palette, picture := d.prompt != nil, d.Palette, d.picture()
	d.Frame.Show(func(columns, rows int) []string {
		lines := picture(columns, rows-1)
		lines = append(lines, make([]string, max(rows-1-len(lines), 0))...)
		text := fitKeys(last, columns)
		if isPrompt {
			text = tail(last, columns)
		}
		return append(lines, palette.Apply(style, text))
	})
}

// picture returns the lines above the last one.
func (d *dashboard) picture() live.View {
	if d.page != nil {
		shown := d.page
		return func(columns, rows int) []string { return shown.pageLines(columns, rows, d.Palette) }
	}
	status, palette := d.status, d.Palette
	status.Now.Functions = d.functions()
	cursor, filter := d.cursor(status.Now.Functions), d.filter
	head, headStyle := status.Head(), term.Bold
	if d.lost != nil {
		head, headStyle = fmt.Sprintf("no answer since %s: %s", d.at.Format(time.TimeOnly), term.OneLine(d.lost.Error(), 500)), term.Red
	}
	if filter != "" {
		head += fmt.Sprintf("; filter %q: %d of %d functions", term.Printable(filter), len(status.Now.Functions), len(d.status.Now.Functions))
	}
	return func(columns, rows int) []string {
		lines := []string{palette.Apply(headStyle, term.Truncate(head, columns))}
		table := status.Table()
		table.Cursor = &cursor
		functions := table.Lines(columns, palette)
		lines = append(lines, functions[0])
		lines = append(lines, window(functions[1:], cursor, max(rows-len(lines)-minNotes, 1))...)
		var notes []string
		if cursor >= 0 {
			if f := status.Now.Functions[cursor]; f.Reason != "" && statustext.IsQuiet(f.State) { // the notes have other reasons
				for _, line := range term.Wrap(term.Printable(f.Name+": "+f.Reason), columns, "  ") {
					notes = append(notes, palette.Apply(term.Bold, line))
				}
			}
		}
		notes = append(notes, status.Notes(columns)...)
		return append(lines, live.CutLines(notes, max(rows-len(lines), 1))...)
	}
}

// minNotes is the number of lines below the table that are reserved for notes.
const minNotes = 4

// fitKeys returns the entries of a line that fit. Two spaces separate entries.
func fitKeys(line string, columns int) string {
	for term.Columns(line) > columns {
		i := strings.LastIndex(line, "  ")
		if i < 0 {
			return term.Truncate(line, columns)
		}
		line = line[:i]
	}
	return line
}

// tail returns the end of a line that is too long, where the input is.
func tail(line string, columns int) string {
	runes := []rune(line)
	for len(runes) > 0 && term.Columns(string(runes)) > columns {
		runes = runes[1:]
	}
	return string(runes)
}
