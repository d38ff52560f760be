// Command recording runs a command in a pseudo-terminal, and writes its output as an animated SVG
// picture without scripts, fonts or links. `make recording` records `drover demo`.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
)

func main() {
	out := flag.String("o", "", "write the picture into this file")
	columns := flag.Int("columns", 100, "the width of the terminal")
	rows := flag.Int("rows", 16, "the height of the terminal")
	prompt := flag.String("prompt", "", "the command line to show (default: the command)")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "Usage: go run ./internal/recording -o FILE.svg COMMAND [ARGUMENT ...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *out == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if *prompt == "" {
		*prompt = strings.Join(flag.Args(), " ")
	}
	frames, err := record(flag.Args(), *prompt, *columns, *rows)
	if err == nil {
		err = os.WriteFile(*out, []byte(drawSVG(frames, *columns, *rows)), 0o644) //nolint:gosec // a page of the project
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "recording:", err)
		os.Exit(1)
	}
}

const (
	// typing is how long the command line is shown before it runs.
	typing = 700 * time.Millisecond
	// shortest is the minimum time that a frame is shown. A frame that follows sooner replaces it.
	shortest = 150 * time.Millisecond
)

// record runs a command in a temporary directory, and returns the frames.
func record(args []string, prompt string, columns, rows int) (frames []frame, err error) {
	dir, err := os.MkdirTemp("", "recording")
	if err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program, err := exec.LookPath(args[0])
	if err != nil {
		return nil, fmt.Errorf("finding the command: %w", err)
	}
	if program, err = filepath.Abs(program); err != nil {
		return nil, fmt.Errorf("finding the command: %w", err)
	}
	screen := vt10x.New(vt10x.WithSize(columns, rows))
	_, _ = fmt.Fprintf(screen, "\x1b[32m$\x1b[0m %s\r\n", prompt) // it never fails
	frames = addFrame(nil, 0, screen)
	cmd := exec.Command(program, args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "NO_COLOR=")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)})
	if err != nil {
		return nil, fmt.Errorf("starting the command: %w", err)
	}
	began := time.Now()
	buffer := make([]byte, 64<<10)
	for {
		n, err := terminal.Read(buffer)
		if n > 0 {
			_, _ = screen.Write(buffer[:n])
			frames = addFrame(frames, typing+time.Since(began), screen)
		}
		if err != nil { // the end of the terminal
			break
		}
	}
	if err := errors.Join(cmd.Wait(), terminal.Close()); err != nil {
		return nil, fmt.Errorf("running the command: %w", err)
	}
	return frames, nil
}

// addFrame adds the contents of a screen if they have changed. It replaces a frame that was shown only
// for a moment.
func addFrame(frames []frame, at time.Duration, screen vt10x.Terminal) []frame {
	next := readScreen(screen)
	next.at = at
	n := len(frames)
	switch {
	case n == 0:
	case next.equals(frames[n-1]):
		return frames
	case n > 1 && at-frames[n-1].at < shortest:
		next.at = frames[n-1].at
		frames = frames[:n-1]
	}
	return append(frames, next)
}

// readScreen returns the contents of a screen.
func readScreen(screen vt10x.Terminal) frame {
	columns, rows := screen.Size()
	var f frame
	for y := range rows {
		var words []word
		blanks := 2
		for x := range columns {
			cell := screen.Cell(x, y)
			if cell.Char == ' ' || cell.Char == 0 {
				blanks++
				continue
			}
			last := len(words) - 1
			class := classOf(cell)
			if last < 0 || blanks > 1 || words[last].class != class {
				words = append(words, word{column: x, class: class})
				last++
			} else {
				words[last].text += strings.Repeat(" ", blanks)
			}
			words[last].text += string(cell.Char)
			blanks = 0
		}
		f.rows = append(f.rows, words)
	}
	return f
}

// bold is vt10x's bit of a bold character.
const bold = 1 << 2

// classOf returns the class of a character in the picture.
func classOf(cell vt10x.Glyph) string {
	color := cell.FG
	if color.ANSI() && color >= 8 { // bold characters have the bright colors
		color -= 8
	}
	class := map[vt10x.Color]string{vt10x.Red: "r", vt10x.Green: "g", vt10x.Yellow: "y", vt10x.Blue: "b", vt10x.Magenta: "m", vt10x.Cyan: "c"}[color]
	if cell.Mode&bold != 0 {
		class += "o"
	}
	return class
}
