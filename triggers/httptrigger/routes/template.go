package routes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Route is a parsed template.
type Route struct {
	template string
	segments []segment
}

// segment is the part between two slashes: one literal, one parameter, or several of both.
type segment []part

// part is a literal, or a parameter if it has a name.
type part struct {
	literal  string
	name     string
	kind     paramKind
	def      *string // the default value; nil for none
	optional bool
	checks   []constraint
}

// paramKind is how much of a path a parameter matches.
type paramKind int

const (
	oneSegment paramKind = iota
	restOfPath
)

// maxSegments bounds the segments of a template and of a path.
const maxSegments = 64

// Parse parses a template. A slash at its start or its end has no meaning.
func Parse(template string) (*Route, error) {
	r := &Route{template: strings.Trim(template, "/")}
	if r.template == "" {
		return r, nil
	}
	parser := templateParser{text: r.template}
	for {
		s, err := parser.parseSegment()
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", template, err)
		}
		r.segments = append(r.segments, s)
		if !parser.skip("/") {
			break
		}
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("route %q: %w", template, err)
	}
	return r, nil
}

// String returns the template without slashes at its ends.
func (r *Route) String() string { return r.template }

// Shape returns a text that is the same for two templates that match the same paths by the same
// rules, regardless of the names of their parameters.
func (r *Route) Shape() string {
	texts := make([]string, len(r.segments))
	for i, s := range r.segments {
		texts[i] = s.key()
		if s[0].isDispensable() {
			texts[i] += "?"
		}
	}
	return strings.Join(texts, "/")
}

func (r *Route) check() error {
	if len(r.segments) > maxSegments {
		return fmt.Errorf("it has more than %d segments", maxSegments)
	}
	names := make(map[string]bool)
	for i, s := range r.segments {
		if len(s) == 0 {
			return errors.New("it has two slashes in a row")
		}
		last := i == len(r.segments)-1
		for j, p := range s {
			if p.name == "" {
				if strings.Contains(p.literal, "?") {
					return errors.New("it has a ? outside a parameter; a query is not part of a route")
				}
				continue
			}
			lower := strings.ToLower(p.name)
			switch {
			case names[lower]:
				return fmt.Errorf("it has the parameter %s twice", p.name)
			case p.kind == restOfPath && (!last || len(s) > 1):
				return fmt.Errorf("{*%s} matches the rest of the path, so it must be the last segment", p.name)
			case p.optional && len(s) > 1:
				return fmt.Errorf("{%s?} is optional, so it must be a whole segment", p.name)
			case p.optional && p.def != nil:
				return fmt.Errorf("{%s} has a default, so it is optional already; remove the ?", p.name)
			case j > 0 && s[j-1].name != "":
				return fmt.Errorf("put a literal between {%s} and {%s}", s[j-1].name, p.name)
			}
			names[lower] = true
		}
		if !s[0].isDispensable() && i > 0 && r.segments[i-1][0].optional {
			return fmt.Errorf("{%s?} is optional, so nothing may follow it", r.segments[i-1][0].name)
		}
	}
	return nil
}

// isDispensable reports whether a path may end before the part.
func (p part) isDispensable() bool {
	return p.name != "" && (p.optional || p.def != nil || p.kind == restOfPath)
}

// leastSegments is the number of segments of the shortest path that matches.
func (r *Route) leastSegments() int {
	n := len(r.segments)
	for n > 0 && len(r.segments[n-1]) == 1 && r.segments[n-1][0].isDispensable() {
		n--
	}
	return n
}

// rank is the order in which segments are tried: literals first.
type rank int

const (
	literalRank rank = iota + 1
	constrainedRank
	paramRank
	constrainedRestRank
	restRank
)

func (s segment) rank() rank {
	switch {
	case len(s) == 1 && s[0].name == "":
		return literalRank
	case s[0].kind == restOfPath && len(s[0].checks) > 0:
		return constrainedRestRank
	case s[0].kind == restOfPath:
		return restRank
	case len(s) > 1 || len(s[0].checks) > 0:
		return constrainedRank
	}
	return paramRank
}

// key identifies a segment among those that follow the same ones.
func (s segment) key() string {
	var b strings.Builder
	for _, p := range s {
		if p.name == "" {
			b.WriteString(strings.ToLower(p.literal))
			continue
		}
		b.WriteString("{")
		if p.kind == restOfPath {
			b.WriteString("*")
		}
		for _, c := range p.checks {
			b.WriteString(":" + c.text)
		}
		b.WriteString("}")
	}
	return b.String()
}

// templateParser reads a template from its start to its end.
type templateParser struct {
	text string
	at   int
}

func (t *templateParser) skip(word string) bool {
	if strings.HasPrefix(t.text[t.at:], word) {
		t.at += len(word)
		return true
	}
	return false
}

// parseSegment reads up to the next slash.
func (t *templateParser) parseSegment() (s segment, err error) {
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			s = append(s, part{literal: literal.String()})
			literal.Reset()
		}
	}
	for t.at < len(t.text) && t.text[t.at] != '/' {
		switch {
		case t.skip("{{"):
			literal.WriteByte('{')
		case t.skip("}}"):
			literal.WriteByte('}')
		case t.skip("}"):
			return nil, errors.New("it has a } without a {")
		case t.skip("{"):
			flush()
			p, err := t.parseParam()
			if err != nil {
				return nil, err
			}
			s = append(s, p)
		default:
			literal.WriteByte(t.text[t.at])
			t.at++
		}
	}
	flush()
	return s, nil
}

// parseParam reads a parameter after its opening brace: name, constraints, default, end.
func (t *templateParser) parseParam() (p part, err error) {
	if t.skip("**") || t.skip("*") {
		p.kind = restOfPath
	}
	p.name = t.readUntil(":=?}")
	if p.name == "" || strings.ContainsAny(p.name, "/{*") {
		return p, errors.New("a parameter needs a name, such as {id}")
	}
	for t.skip(":") {
		c, err := t.parseConstraint()
		if err != nil {
			return p, fmt.Errorf("parameter %s: %w", p.name, err)
		}
		p.checks = append(p.checks, c)
	}
	if t.skip("=") {
		value := t.readUntil("?}")
		p.def = &value
	}
	if t.skip("?") {
		if p.optional = true; p.kind == restOfPath {
			return p, fmt.Errorf("{*%s} may be empty anyway; remove the ?", p.name)
		}
	}
	if !t.skip("}") {
		return p, fmt.Errorf("parameter %s has no closing brace", p.name)
	}
	return p, nil
}

func (t *templateParser) readUntil(ends string) string {
	from := t.at
	for t.at < len(t.text) && !strings.ContainsRune(ends, rune(t.text[t.at])) {
		t.at++
	}
	return t.text[from:t.at]
}

// parseConstraint reads a constraint after its colon, such as int or range(1,5). A regular
// expression in a template has doubled braces.
func (t *templateParser) parseConstraint() (constraint, error) {
	name := strings.ToLower(t.readUntil("(:=?}"))
	if !t.skip("(") {
		return newConstraint(name, nil)
	}
	from, depth := t.at, 1
	for ; t.at < len(t.text); t.at++ {
		switch t.text[t.at] {
		case '\\':
			t.at++
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 {
			break
		}
	}
	if t.at >= len(t.text) {
		return constraint{}, fmt.Errorf("%s( has no closing parenthesis", name)
	}
	arguments := t.text[from:t.at]
	t.at++
	if name == "regex" {
		return newConstraint(name, []string{strings.NewReplacer("{{", "{", "}}", "}").Replace(arguments)})
	}
	list := strings.Split(arguments, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return newConstraint(name, slices.Clip(list))
}
