package tune

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/term"
)

// Progress shows the progress of a run: on a terminal a bar and a table of the measured cells, else a
// line for each cell. All fields but Palette are required.
type Progress struct {
	Report     *Report // with the cells
	Out        io.Writer
	IsTerminal bool
	Palette    term.Palette

	frame *live.Frame // nil without a terminal
	began time.Time
}

// Open starts to show the progress. remove removes the table, because the report prints it. resizes is as
// for live.Frame.Follow.
func (p *Progress) Open(resizes func() (changes <-chan os.Signal, stop func())) (remove func()) {
	p.began = time.Now()
	if !p.IsTerminal {
		return func() {}
	}
	p.frame = live.NewFrame(p.Out)
	p.Out = p.frame
	stop := p.frame.Follow(resizes)
	return func() {
		stop()
		_ = p.frame.Clear() // the terminal may be gone
	}
}

// Printf prints a line, above the table.
func (p *Progress) Printf(format string, args ...any) {
	_, _ = fmt.Fprintln(p.Out, term.Printable("tune: "+fmt.Sprintf(format, args...)))
}

// BeginCell shows the settings that are measured, and their number.
func (p *Progress) BeginCell(number, all int, s Settings) {
	if p.frame != nil {
		p.drawTable(number-1, all, fmt.Sprintf("measuring %v", s))
	}
}

// EndCell shows the result of a cell as text.
func (p *Progress) EndCell(number, all int, result string) {
	if p.frame == nil {
		p.Printf("%d of %d: %s", number, all, result)
		return
	}
	p.drawTable(number, all, term.OneLine(result, 500))
}

func (p *Progress) drawTable(done, all int, doing string) {
	table := p.Report.Table()
	bar := live.Bar{Label: "tune:", Done: int64(done), Total: int64(all), Elapsed: time.Since(p.began)}
	p.frame.Show(func(columns, rows int) []string {
		lines := []string{bar.Line(columns, p.Palette), term.Truncate(doing, columns)}
		return live.CutLines(append(lines, table.Lines(columns, p.Palette)...), rows)
	})
}
