// Package live draws changing output on a terminal: tables that fit its width, progress bars, and
// frames that replace the previous one. Commands call it. A frame may be used from any goroutine;
// tables and bars are values without state.
package live

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/drover-run/drover/daemon/cli/term"
)

// View returns the lines of a picture for a size of the terminal: at most rows lines, of at most
// columns each. Lines may have styles.
type View func(columns, rows int) []string

// CutLines returns at most rows lines; 0 is no limit. If lines are left out, the last line has their
// number.
func CutLines(lines []string, rows int) []string {
	if rows == 0 || len(lines) <= rows {
		return lines
	}
	if rows == 1 {
		return lines[:1]
	}
	return append(lines[:rows-1:rows-1], fmt.Sprintf("... %d more lines", len(lines)-rows+1))
}

// The size assumed for a terminal that does not report one.
const (
	defaultColumns = 80
	defaultRows    = 24
)

// Escape codes of ECMA-48 and of DEC's private modes.
const (
	clearLine      = "\x1b[K"      // from the cursor to the end of the line
	clearBelow     = "\x1b[J"      // from the cursor to the end of the screen
	home           = "\x1b[H"      // the first column of the first row
	beginFrame     = "\x1b[?2026h" // the terminal shows nothing until endFrame, if it has this mode
	endFrame       = "\x1b[?2026l"
	hideCursor     = "\x1b[?25l"
	showCursor     = "\x1b[?25h"
	clipLines      = "\x1b[?7l" // longer lines are cut at the right margin instead of wrapped
	wrapLines      = "\x1b[?7h"
	enterAlternate = "\x1b[?1049h" // a screen without scrollback; the main one is kept
	leaveAlternate = "\x1b[?1049l"
)

// Frame is a part of a terminal that is drawn again and again. Between two drawings the cursor
// stays at the frame's first line: a terminal that breaks lines when it becomes narrower keeps
// the cursor with its line, so the next drawing still starts at the right place.
type Frame struct {
	out        io.Writer
	fullScreen bool

	mu     sync.Mutex
	view   View
	shown  []string // the lines that were drawn
	later  []byte   // text to write on leaving the screen
	closed bool
}

// NewFrame returns a frame below the terminal's current text. Close leaves the last picture there.
// Text that is written to the frame appears above it.
func NewFrame(out io.Writer) *Frame { return &Frame{out: out} }

// OpenFrame returns a frame that follows the size of the terminal, and turns off echo. leave ends it.
// resizes is as for Follow.
func OpenFrame(out io.Writer, in io.Reader, resizes func() (changes <-chan os.Signal, stop func())) (f *Frame, leave func()) {
	f = NewFrame(out)
	showInput, stop := HideInput(in), f.Follow(resizes)
	return f, func() {
		stop()
		_ = f.Close() // the terminal may be gone
		showInput()
	}
}

// NewScreen returns a frame that fills the terminal's alternate screen. Close returns to the
// main screen, with the text that was written to the frame.
func NewScreen(out io.Writer) *Frame {
	_, _ = io.WriteString(out, enterAlternate+hideCursor+home+clearBelow) // errors show at the next write
	return &Frame{out: out, fullScreen: true}
}

// Fd returns the file descriptor of the terminal, for term.Size; ^0 if it has none.
func (f *Frame) Fd() uintptr {
	if file, ok := f.out.(interface{ Fd() uintptr }); ok {
		return file.Fd()
	}
	return ^uintptr(0)
}

// Size returns the size of the terminal, in columns and rows.
func (f *Frame) Size() (columns, rows int) {
	if sized, ok := f.out.(interface{ Size() (columns, rows int) }); ok {
		return sized.Size()
	}
	columns, rows, ok := term.Size(f.out)
	if !ok {
		return defaultColumns, defaultRows
	}
	return columns, rows
}

// Show draws a view, which replaces the previous one.
func (f *Frame) Show(view View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view = view
	_ = f.draw(nil) // Write and Close report a terminal that is gone
}

// Redraw draws the view again, as after a resize.
func (f *Frame) Redraw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.draw(nil)
}

// Write writes text above the frame, which moves down. The text should end with a newline.
func (f *Frame) Write(text []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.view == nil {
		return f.out.Write(text)
	}
	if f.fullScreen {
		f.later = append(f.later, text[:min(len(text), maxLater-len(f.later))]...)
		return len(text), nil
	}
	return len(text), f.draw(text)
}

// maxLater bounds the text that a screen keeps for its end, in bytes.
const maxLater = 64 << 10

// draw writes text above the frame, and draws the frame. The caller holds mu.
func (f *Frame) draw(above []byte) error {
	if f.closed || f.view == nil {
		return nil
	}
	columns, rows := f.Size()
	f.shown = f.view(columns, rows)
	f.shown = f.shown[:min(len(f.shown), rows)]
	var b bytes.Buffer
	b.WriteString(beginFrame + hideCursor)
	if f.fullScreen {
		b.WriteString(home)
	} else {
		b.WriteString("\r")
	}
	if len(above) > 0 {
		b.WriteString(clearBelow)
		b.Write(bytes.ReplaceAll(above, []byte("\n"), []byte("\r\n")))
		if !bytes.HasSuffix(above, []byte("\n")) {
			b.WriteString("\r\n")
		}
	}
	b.WriteString(clipLines)
	for i, line := range f.shown {
		if i < len(f.shown)-1 {
			b.WriteString(clearLine + line + "\r\n")
			continue
		}
		b.WriteString(clearBelow + line + "\r") // cleared first: the cursor may end in the last column
	}
	if len(f.shown) == 0 {
		b.WriteString(clearBelow)
	}
	if n := len(f.shown) - 1; n > 0 {
		b.WriteString(cursorUp(n))
	}
	b.WriteString(wrapLines + endFrame)
	_, err := f.out.Write(b.Bytes())
	return err
}

// Close ends the frame. Text that is written later goes to the terminal.
func (f *Frame) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	if f.view == nil && !f.fullScreen { // nothing was drawn
		f.closed = true
		return nil
	}
	text := strings.Repeat("\r\n", len(f.shown)) + showCursor
	if f.fullScreen {
		text = leaveAlternate + showCursor + string(f.later)
	}
	f.closed = true
	_, err := io.WriteString(f.out, text)
	return err
}

// Follow draws the view again after each change of the terminal's size, until stop is called. resizes
// delivers the changes until its stop is called; without it, Follow does nothing.
func (f *Frame) Follow(resizes func() (changes <-chan os.Signal, stop func())) (stop func()) {
	if resizes == nil {
		return func() {}
	}
	changes, end := resizes()
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-changes:
				f.Redraw()
			case <-done:
				return
			}
		}
	})
	return func() {
		end()
		close(done)
		wait.Wait()
	}
}

// Clear removes the frame and ends it.
func (f *Frame) Clear() error {
	f.mu.Lock()
	if f.view != nil {
		f.view = func(int, int) []string { return nil }
	}
	_ = f.draw(nil) // Close reports a terminal that is gone
	f.mu.Unlock()
	return f.Close()
}
