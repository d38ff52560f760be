package live

import (
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/cli/term"
)

const (
	// progressEvery is the minimum time between two drawings of a progress bar.
	progressEvery = 100 * time.Millisecond
	// maxBar and minBar bound the width of a bar. If there is less room, it is left out.
	maxBar = 40
	minBar = 8
)

// Bar is the state of work with a number of steps.
type Bar struct {
	Label   string
	Done    int64
	Total   int64 // 0 if it is unknown
	Elapsed time.Duration
}

// Line returns the bar as one line of at most that many columns. To fit, it leaves out the time left
// first, then the rate, then the bar.
func (b Bar) Line(columns int, palette term.Palette) string {
	rate := float64(b.Done) / max(b.Elapsed.Seconds(), 1e-3)
	label, count := term.Truncate(b.Label, columns), fmt.Sprint(b.Done)
	parts := []string{fmt.Sprintf("%.0f/s", rate)}
	if b.Total > 0 {
		count = fmt.Sprintf("%*d of %d", len(fmt.Sprint(b.Total)), b.Done, b.Total)
		if rate > 0 {
			left := time.Duration(float64(max(b.Total-b.Done, 0)) / rate * float64(time.Second))
			parts = append(parts, left.Round(time.Second).String()+" left")
		}
	}
	line := term.Truncate(label+" "+count, columns)
	room := columns - term.Columns(line)
	bar := ""
	if n := min(room-1, maxBar); b.Total > 0 && n >= minBar {
		bar = palette.Apply(term.Green, BarText(float64(b.Done)/float64(b.Total), n, true))
		room -= n + 1
		line += " " + bar
	}
	for _, part := range parts {
		if n := term.Columns(part) + 1; n <= room {
			line, room = line+" "+part, room-n
		}
	}
	return line
}

// BarText returns a bar for a fraction, in eighths of a character. It takes width columns if padded,
// else at most that many.
func BarText(part float64, width int, padded bool) string {
	n := int(math.Round(min(max(part, 0), 1) * float64(width) * 8))
	out := strings.Repeat("█", n/8)
	if n%8 > 0 {
		out += string([]rune(" ▏▎▍▌▋▊▉")[n%8])
	}
	if padded {
		out += strings.Repeat("·", width-(n+7)/8)
	}
	return out
}

// Progress is a progress bar on a terminal. It is safe for concurrent use.
type Progress struct {
	frame   *Frame
	palette term.Palette

	mu    sync.Mutex
	bar   Bar
	begun time.Time
	drawn time.Time
}

// NewProgress returns a progress bar on a terminal; total is 0 if it is unknown. Remove removes it.
func NewProgress(out io.Writer, palette term.Palette, label string, total int64) *Progress {
	return &Progress{frame: NewFrame(out), palette: palette, bar: Bar{Label: label, Total: total}, begun: time.Now()}
}

// Write writes text above the bar.
func (p *Progress) Write(text []byte) (int, error) { return p.frame.Write(text) }

// Add counts n steps, and draws the bar if it was not drawn recently.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bar.Done += n
	now := time.Now()
	if now.Sub(p.drawn) < progressEvery {
		return
	}
	p.drawn = now
	bar := p.bar
	bar.Elapsed = now.Sub(p.begun)
	p.frame.Show(func(columns, _ int) []string { return []string{bar.Line(columns, p.palette)} })
}

// Remove removes the bar.
func (p *Progress) Remove() { _ = p.frame.Clear() } // the terminal may be gone
