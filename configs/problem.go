package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Position is a place in a file, counted from 1; the zero Position is nowhere.
type Position struct{ Line, Column int }

// Problem is one thing that is wrong, and where.
type Problem struct {
	File string
	Position
	// Message says what is wrong, and what to write instead.
	Message string
	// Excerpt is the line with a mark below it; empty where there is no place.
	Excerpt string
}

func (p Problem) String() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
	if where != "" {
		where += ": "
	}
	return where + p.Message + p.Excerpt
}

// Errors is all that is wrong with a configuration, in the file's order.
type Errors []Problem

func (e Errors) Error() string {
	var out []string
	for _, p := range e {
		out = append(out, p.String())
	}
	return strings.Join(out, "\n")
}

func (e Errors) sorted() Errors {
	slices.SortStableFunc(e, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return e
}

// source is a file that is being read, and where each key's value stands in it.
type source struct {
	name     string
	dir      string
	lines    []string
	where    map[string]Position // by path, such as functions.orders.timeout
	files    map[string]string   // that values are from, by path
	secrets  []string            // values that no excerpt may show
	read     map[string]bool     // variables of the environment that values are from
	problems Errors
}

// Source is the text that a configuration was read from, what messages call it,
// and the directory that paths in it are relative to; ok is false for one that a
// program made.
func (c *Config) Source() (name, dir string, text []byte, ok bool) {
	if c.source == nil || c.source.lines == nil {
		return "", "", nil, false
	}
	return c.source.name, c.source.dir, []byte(strings.Join(c.source.lines, "\n")), true
}

// at is where a path's value stands, or the nearest that holds it.
func (s *source) at(path string) Position {
	for {
		if p, ok := s.where[path]; ok {
			return p
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return Position{}
		}
		path = path[:i]
	}
}

// given reports whether the file has the path's key.
func (s *source) given(path string) bool {
	_, found := s.where[path]
	return found
}

// problem notes what is wrong at a place. The excerpt is added at the end, when
// all secrets are known.
func (s *source) problem(at Position, format string, args ...any) {
	s.problems = append(s.problems, Problem{File: s.name, Position: at, Message: fmt.Sprintf(format, args...)})
}

const (
	// maxProblems bounds what is reported at once.
	maxProblems = 200
	// maxExcerpt bounds how much of a line is shown before and after the mark.
	maxExcerpt = 120
	// maxMessage bounds the message of a problem, in bytes.
	maxMessage = 4 << 10
	// maxWord bounds the words that are compared to find which one is meant.
	maxWord = 64
)

// errors returns what was found, or nil.
func (s *source) errors() error {
	if len(s.problems) == 0 {
		return nil
	}
	if more := len(s.problems) - maxProblems; more > 0 {
		last := s.problems[maxProblems-1]
		last.Message = fmt.Sprintf("%d more problems follow; fix these first", more+1)
		s.problems = append(s.problems[:maxProblems-1], last)
	}
	for i, p := range s.problems {
		s.problems[i].Excerpt = s.excerpt(p.Position)
		for _, secret := range s.secrets {
			s.problems[i].Message = strings.ReplaceAll(s.problems[i].Message, secret, "***")
		}
		if message := s.problems[i].Message; len(message) > maxMessage { // cut when it has no secrets any more
			s.problems[i].Message = strings.ToValidUTF8(message[:maxMessage], "") + "..."
		}
	}
	return s.problems.sorted()
}

// excerpt is the line with a mark at the column. What follows a colon behind the
// mark is left out: it may be a secret under a misspelt key.
func (s *source) excerpt(at Position) string {
	if at.Line < 1 || at.Line > len(s.lines) {
		return ""
	}
	line := s.lines[at.Line-1]
	for _, secret := range s.secrets {
		for part := range strings.Lines(secret) {
			if part = strings.TrimSpace(part); part != "" {
				line = strings.ReplaceAll(line, part, "***")
			}
		}
	}
	column := min(at.Column, len([]rune(line))+1)
	runes := []rune(line)
	before, after := string(runes[:column-1]), string(runes[column-1:])
	if n := len(runes[:column-1]); n > maxExcerpt {
		before = "..." + string(runes[n-maxExcerpt:n])
	}
	if len(runes)-(column-1) > maxExcerpt {
		after = string(runes[column-1:column-1+maxExcerpt]) + "..."
	}
	if key, _, found := strings.Cut(after, ": "); found {
		after = key + ": ..."
	}
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, before)
	number := fmt.Sprintf("%5d | ", at.Line)
	return "\n" + number + before + after + "\n" + strings.Repeat(" ", len(number)-2) + "| " + pad + "^"
}

// Nearest returns the known word that a misspelt one is meant to be, or "".
func Nearest(word string, known []string) string {
	if len(word) > maxWord {
		return ""
	}
	best, distance := "", len(word)/2+1
	for _, k := range known {
		if d := edits(strings.ToLower(word), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// edits counts the letters to insert, remove, replace or swap with the next to
// make b of a.
func edits(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// meant is the hint at the end of a message about an unknown word.
func meant(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	if len(known) == 0 {
		return ""
	}
	return "; use one of: " + strings.Join(known, ", ")
}
