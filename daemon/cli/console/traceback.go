package console

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-run/drover/daemon/cli/term"
)

var (
	// pythonFrame is the first line of a frame; in exception groups it begins with bars. The
	// lines of source that follow are indented further.
	pythonFrame = regexp.MustCompile(`^([ |+-]*)File "([^"]+)", line \d+`)
	// nodeFrame is a frame of Node.js, which is one line.
	nodeFrame = regexp.MustCompile(`^\s+at (?:.*\()?(?:file://)?([^()]+?):\d+:\d+\)?$`)
	// carets matches the line below a line of source that marks the expression.
	carets = regexp.MustCompile(`^[ |]*[~^]+[ ~^]*$`)
	// pythonLibrary and nodeLibrary match the files of libraries; the group is the library's name.
	pythonLibrary = regexp.MustCompile(`(?:.*[/\\](?:site|dist)-packages[/\\]|[/\\]lib(?:64)?[/\\]python3[^/\\]*[/\\]|^<frozen )([^/\\.>]+)`)
	nodeLibrary   = regexp.MustCompile(`(?:.*[/\\]node_modules[/\\]|^node:)((?:@[^/\\]+[/\\])?[^/\\]+)`)
)

// frame is one frame of a traceback, or, with an empty file, other lines.
type frame struct {
	lines   []string
	file    string
	indent  string
	library string // the library's name; empty: the user's code
}

// cutTraceback replaces the frames of libraries in a traceback by one line with their number. It does
// not change other texts, and tracebacks without a frame of the user's code. Paths below dir become relative,
// and lines of carets that are wider than the columns are dropped, since the terminal would wrap them.
func cutTraceback(text, dir string, columns int) string {
	if !strings.Contains(text, "\n") {
		return text
	}
	frames := framesOf(text)
	if !slices.ContainsFunc(frames, func(f frame) bool { return f.file != "" && f.library == "" }) {
		return text
	}
	var out []string
	for i := 0; i < len(frames); i++ {
		f := frames[i]
		if f.library == "" {
			for n, line := range f.lines {
				if n == 0 && f.file != "" {
					line = strings.Replace(line, f.file, relative(f.file, dir), 1)
				}
				if n == 0 || columns <= 0 || term.Columns(line) <= columns || !carets.MatchString(line) {
					out = append(out, line)
				}
			}
			continue
		}
		n, libraries := 0, []string(nil)
		for ; i < len(frames) && frames[i].library != ""; i++ {
			if n++; !slices.Contains(libraries, frames[i].library) {
				libraries = append(libraries, frames[i].library)
			}
		}
		i--
		word := "frames"
		if n == 1 {
			word = "frame"
		}
		out = append(out, fmt.Sprintf("%s... %d %s of %s", f.indent, n, word, strings.Join(libraries, ", ")))
	}
	return strings.Join(out, "\n")
}

// framesOf returns the frames of a traceback, and the lines between them.
func framesOf(text string) (out []frame) {
	inPython := false // the last element is a frame that the next lines may belong to
	for line := range strings.SplitSeq(text, "\n") {
		if m := pythonFrame.FindStringSubmatch(line); m != nil {
			out = append(out, frame{lines: []string{line}, indent: m[1], file: m[2], library: libraryOf(pythonLibrary, m[2])})
			inPython = true
			continue
		}
		if m := nodeFrame.FindStringSubmatch(line); m != nil {
			before, _, _ := strings.Cut(line, "at ")
			out = append(out, frame{lines: []string{line}, indent: before, file: m[1], library: libraryOf(nodeLibrary, m[1])})
			inPython = false
			continue
		}
		if inPython {
			last := &out[len(out)-1]
			if strings.HasPrefix(line, last.indent+"  ") || strings.HasPrefix(line, last.indent+"[Previous line repeated") {
				last.lines = append(last.lines, line)
				continue
			}
		}
		out = append(out, frame{lines: []string{line}})
		inPython = false
	}
	return out
}

func libraryOf(form *regexp.Regexp, file string) string {
	if m := form.FindStringSubmatch(file); m != nil {
		return m[1]
	}
	return ""
}

// relative returns a path below a directory relative to it, and other paths unchanged.
func relative(path, dir string) string {
	if dir == "" || !filepath.IsAbs(path) {
		return path
	}
	if short, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(short) {
		return short
	}
	return path
}
