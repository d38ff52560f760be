// Package problems collects the errors in a file, and reports each with its place and an excerpt
// that shows no secret. One goroutine at a time uses a Source.
package problems

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Position is a place in a file, counted from 1; the zero Position is nowhere.
type Position struct{ Line, Column int }

// Problem is one error, and its place.
type Problem struct {
	File string
	Position
	// Message describes the error, and how to fix it.
	Message string
	// Excerpt is the line with a mark below it; empty without a place.
	Excerpt string
}

func (p Problem) String() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Column > 0 {
		where += fmt.Sprintf(":%d", p.Column)
	}
	if where != "" {
		where += ": "
	}
	return where + p.Message + p.Excerpt
}

// Errors lists all errors of a configuration, in the file's order.
type Errors []Problem

func (e Errors) Error() string {
	var out []string
	for _, p := range e {
		out = append(out, p.String())
	}
	return strings.Join(out, "\n")
}

func (e Errors) sortByPlace() Errors {
	slices.SortStableFunc(e, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return e
}

// Source is a file that is being read, with the place of each key's value.
type Source struct {
	Name      string                           // its name in messages
	Dir       string                           // the directory of relative paths
	Env       func(name string) (string, bool) // looks up environment variables
	Lines     []string                         // nil if a program made the configuration
	Where     map[string]Position              // by path, such as functions.orders.timeout
	Files     map[string]string                // the files of values, by path
	Secrets   []string                         // values that excerpts must not show
	Variables map[string]bool                  // the environment variables of values
	Reads     map[string][]string              // likewise, by path
	Inherited map[string]string                // the path of the default that a value has, by path
	FileEnv   map[string]Variable              // the environment variables of files that the file names
	Lenient   bool                             // files of environment variables may be missing
	Problems  Errors
	Warnings  []string // settings that work, but may be a mistake
}

// Variable is an environment variable that a file sets.
type Variable struct {
	Value, File string
	Line        int
}

// String hides the value, which may be secret.
func (v Variable) String() string { return "***" }

// GoString hides it, too.
func (v Variable) GoString() string { return v.String() }

// Lookup returns an environment variable: of the process, else of a file.
func (s *Source) Lookup(name string) (value string, found bool) {
	if s.Env != nil {
		if value, found = s.Env(name); found {
			return value, true
		}
	}
	v, found := s.FileEnv[name]
	return v.Value, found
}

// New returns the source of a text.
func New(name string, text []byte, dir string, env func(name string) (string, bool)) *Source {
	return &Source{
		Name: name, Dir: dir, Env: env, Lines: strings.Split(string(text), "\n"),
		Where: make(map[string]Position), Files: make(map[string]string), Variables: make(map[string]bool), Reads: make(map[string][]string),
		Inherited: make(map[string]string), FileEnv: make(map[string]Variable),
	}
}

// Text returns the text of the file.
func (s *Source) Text() []byte { return []byte(strings.Join(s.Lines, "\n")) }

// Absolute returns the absolute form of a path in the file.
func (s *Source) Absolute(path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.Dir, path)
	}
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return path
}

// At returns the place of a path's value, or of the nearest enclosing one.
func (s *Source) At(path string) Position {
	for {
		if p, ok := s.Where[path]; ok {
			return p
		}
		if p, ok := s.Where[s.Inherited[path]]; ok && s.Inherited[path] != "" {
			return p
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return Position{}
		}
		path = path[:i]
	}
}

// Given reports whether the file has the path's key.
func (s *Source) Given(path string) bool {
	_, found := s.Where[path]
	return found
}

// Report adds a problem at a place. The excerpt is added at the end, when all secrets are known.
func (s *Source) Report(at Position, format string, args ...any) {
	s.Problems = append(s.Problems, Problem{File: s.Name, Position: at, Message: fmt.Sprintf(format, args...)})
}

// Wrong reports a problem with the value of a path.
func (s *Source) Wrong(path, format string, args ...any) {
	s.Report(s.At(path), path+": "+format, args...)
}

// Warn adds a warning.
func (s *Source) Warn(format string, args ...any) {
	s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...))
}

const (
	// maxProblems bounds the number of reported problems.
	maxProblems = 200
	// maxExcerpt bounds the characters of a line before and after the mark.
	maxExcerpt = 120
	// maxMessage bounds the message of a problem, in bytes.
	maxMessage = 4 << 10
	// maxWord bounds the length of words that are compared for a suggestion.
	maxWord = 64
)

// Err returns the problems as Errors, or nil.
func (s *Source) Err() error {
	if len(s.Problems) == 0 {
		return nil
	}
	if more := len(s.Problems) - maxProblems; more > 0 {
		last := s.Problems[maxProblems-1]
		last.Message = fmt.Sprintf("%d more problems follow; fix these first", more+1)
		s.Problems = append(s.Problems[:maxProblems-1], last)
	}
	for i, p := range s.Problems {
		s.Problems[i].Excerpt = s.makeExcerpt(p.Position)
		for _, secret := range s.Secrets {
			s.Problems[i].Message = strings.ReplaceAll(s.Problems[i].Message, secret, "***")
		}
		if message := s.Problems[i].Message; len(message) > maxMessage { // truncated after secrets are removed
			s.Problems[i].Message = strings.ToValidUTF8(message[:maxMessage], "") + "..."
		}
	}
	return s.Problems.sortByPlace()
}

// makeExcerpt returns the line with a mark at the column. It omits the text after a colon behind
// the mark, which may be a secret under a misspelt key.
func (s *Source) makeExcerpt(at Position) string {
	if at.Line < 1 || at.Line > len(s.Lines) {
		return ""
	}
	line := s.Lines[at.Line-1]
	for _, secret := range s.Secrets {
		for part := range strings.Lines(secret) {
			if part = strings.TrimSpace(part); part != "" {
				line = strings.ReplaceAll(line, part, "***")
			}
		}
	}
	column := min(max(at.Column, 1), len([]rune(line))+1)
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

// Nearest returns the known word that is closest to a misspelt one, or "".
func Nearest(word string, known []string) string {
	if len(word) > maxWord {
		return ""
	}
	best, distance := "", len(word)/2+1
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// editDistance returns the number of letters to insert, remove, replace or swap with the next one
// to change a into b.
func editDistance(a, b string) int {
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

// Hint returns the end of a message about an unknown word: the closest known word, or all known
// words.
func Hint(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	if len(known) == 0 {
		return ""
	}
	return "; use one of: " + strings.Join(known, ", ")
}
