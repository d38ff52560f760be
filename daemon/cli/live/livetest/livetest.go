// Package livetest has an emulated screen, to test the terminal output of commands.
package livetest

import (
	"bytes"
	"strings"
	"sync"

	"github.com/hinshun/vt10x"
)

// endOfFrame ends each frame that package live draws.
const endOfFrame = "\x1b[?2026l"

// Screen is the screen of a terminal. It is safe for concurrent use.
type Screen struct {
	mu       sync.Mutex
	terminal vt10x.Terminal
	columns  int
	rows     int
	pending  []byte
	// OnFrame, if not nil, is called after each frame with the lines of the screen.
	OnFrame func(lines []string)
	// Wraps ignores the mode that cuts long lines: they wrap, as on a terminal without that mode, so
	// that a test can find them.
	Wraps bool
}

// New returns an empty screen.
func New(columns, rows int) *Screen {
	return &Screen{terminal: vt10x.New(vt10x.WithSize(columns, rows)), columns: columns, rows: rows}
}

// Size returns the size of the screen, for a frame.
func (s *Screen) Size() (columns, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.columns, s.rows
}

// Write interprets text and escape codes.
func (s *Screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, text...)
	for {
		end := bytes.Index(s.pending, []byte(endOfFrame))
		if end < 0 {
			return len(text), nil
		}
		s.feed(end + len(endOfFrame))
		if s.OnFrame != nil {
			s.OnFrame(s.screenLines())
		}
	}
}

// feed interprets the first n pending bytes. The caller holds mu.
func (s *Screen) feed(n int) {
	part := s.pending[:n]
	if s.Wraps {
		part = bytes.ReplaceAll(part, []byte("\x1b[?7l"), nil)
	}
	_, _ = s.terminal.Write(part) // it never fails
	s.pending = s.pending[n:]
}

// Lines returns the lines of the screen up to the last that is not empty, without trailing spaces.
func (s *Screen) Lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feed(len(s.pending))
	return s.screenLines()
}

func (s *Screen) screenLines() []string {
	lines := strings.Split(s.terminal.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// Resize changes the size like xterm: long lines are cut.
func (s *Screen) Resize(columns, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.columns, s.rows = columns, rows
	s.terminal.Resize(columns, rows)
}

// Reflow changes the size like most terminals: long lines are wrapped, and the cursor keeps its place
// in the text.
func (s *Screen) Reflow(columns, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, cursor := s.screenLines(), s.terminal.Cursor().Y
	s.terminal = vt10x.New(vt10x.WithSize(columns, rows))
	s.columns, s.rows = columns, rows
	y := 0
	for i, line := range lines {
		if i == cursor {
			y = s.terminal.Cursor().Y
		}
		_, _ = s.terminal.Write([]byte(line + "\r\n"))
	}
	_, _ = s.terminal.Write([]byte("\x1b[H" + strings.Repeat("\n", y)))
}

// InAlternate reports whether the screen is the alternate one.
func (s *Screen) InAlternate() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.terminal.Mode()&vt10x.ModeAltScreen != 0
}

// CursorVisible reports whether the cursor is shown.
func (s *Screen) CursorVisible() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.terminal.CursorVisible()
}
