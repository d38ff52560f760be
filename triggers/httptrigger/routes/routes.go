// Package routes finds the route of an HTTP request. Templates have the syntax of Azure Functions and
// ASP.NET Core, such as orders/{id:int}/{part?} or files/{*path}; they are not case-sensitive.
//
// A Table is built once, and then read by many goroutines. Of several routes that match a path, the
// most specific one is found: from the left, a literal segment precedes a parameter with
// constraints, which precedes a plain parameter, which precedes the rest of the path.
package routes

import (
	"net/url"
	"slices"
	"strings"
)

// Table has routes, each with a value.
type Table[T any] struct{ root node[T] }

// node is a node of the tree of segments.
type node[T any] struct {
	literals map[string]*node[T] // by segment in lower case
	params   []*edge[T]          // in the order in which they are tried
	rest     []*leaf[T]          // routes that match all that follows; likewise
	ends     []*leaf[T]          // routes that match a path that ends here; likewise
}

// edge leads to another node by a segment with parameters.
type edge[T any] struct {
	segment segment
	key     string
	to      *node[T]
}

// leaf is a route at the node where its path may end.
type leaf[T any] struct {
	route    *Route
	segments int      // of the path that it matches here
	methods  []string // in upper case; empty: all
	value    T
}

// Param is a parameter of a route and its value in a path.
type Param struct{ Name, Value string }

// Match is a route that was found.
type Match[T any] struct {
	Value  T
	Params []Param // in the order of the route; optional ones without a value are left out
}

// Add adds a route for some methods, in upper case, or for all if there are none.
func (t *Table[T]) Add(r *Route, methods []string, value T) {
	n := &t.root
	for i := range len(r.segments) + 1 {
		if i >= r.leastSegments() {
			n.ends = insertLeaf(n.ends, &leaf[T]{r, i, methods, value})
		}
		if i == len(r.segments) {
			return
		}
		s := r.segments[i]
		if s[0].kind == restOfPath {
			n.rest = insertLeaf(n.rest, &leaf[T]{r, i, methods, value})
			return
		}
		n = n.child(s)
	}
}

// insertLeaf keeps the order: the route with the most specific template first.
func insertLeaf[T any](to []*leaf[T], l *leaf[T]) []*leaf[T] {
	at, _ := slices.BinarySearchFunc(to, l, func(a, b *leaf[T]) int {
		if c := slices.Compare(a.route.ranks(), b.route.ranks()); c != 0 {
			return c
		}
		return -1 // those that were added first come first
	})
	return slices.Insert(to, at, l)
}

func (r *Route) ranks() []rank {
	out := make([]rank, len(r.segments))
	for i, s := range r.segments {
		out[i] = s.rank()
	}
	return out
}

// child returns the node behind a segment, and makes it if need be.
func (n *node[T]) child(s segment) *node[T] {
	key := s.key()
	if s.rank() == literalRank {
		if n.literals == nil {
			n.literals = make(map[string]*node[T])
		}
		if n.literals[key] == nil {
			n.literals[key] = new(node[T])
		}
		return n.literals[key]
	}
	for _, e := range n.params {
		if e.key == key {
			return e.to
		}
	}
	e := &edge[T]{s, key, new(node[T])}
	at := len(n.params)
	for at > 0 && n.params[at-1].segment.rank() > s.rank() {
		at--
	}
	n.params = slices.Insert(n.params, at, e)
	return e.to
}

// Find finds the route of a request. Without one, allowed are the methods of the routes that match
// the path; it is empty if there is no such route.
func (t *Table[T]) Find(method string, u *url.URL) (m Match[T], allowed []string, found bool) {
	var buffer [16]string
	segments, ok := splitPath(u, buffer[:0])
	if !ok {
		return m, nil, false
	}
	s := search[T]{method: method, segments: segments}
	l := s.descend(&t.root, 0)
	if l == nil {
		slices.Sort(s.allowed)
		return m, slices.Compact(s.allowed), false
	}
	return Match[T]{l.value, l.params(segments)}, nil, true
}

// search is the search for the route of one request.
type search[T any] struct {
	method   string
	segments []string
	allowed  []string // methods of other routes
}

// descend tries the segments from i on, below a node, and returns the first route that matches.
func (s *search[T]) descend(n *node[T], i int) *leaf[T] {
	if i == len(s.segments) {
		return s.choose(n.ends, i)
	}
	if n.literals != nil {
		if next := n.literals[strings.ToLower(s.segments[i])]; next != nil {
			if l := s.descend(next, i+1); l != nil {
				return l
			}
		}
	}
	for _, e := range n.params {
		if e.segment.matches(s.segments[i]) {
			if l := s.descend(e.to, i+1); l != nil {
				return l
			}
		}
	}
	return s.choose(n.rest, i)
}

// choose returns the first route with the method, and remembers the methods of others.
func (s *search[T]) choose(of []*leaf[T], i int) *leaf[T] {
	for _, l := range of {
		if l.isRest() && !l.route.segments[l.segments][0].allows(strings.Join(s.segments[i:], "/")) {
			continue
		}
		if len(l.methods) == 0 || slices.Contains(l.methods, s.method) {
			return l
		}
		s.allowed = append(s.allowed, l.methods...)
	}
	return nil
}

func (l *leaf[T]) isRest() bool {
	return l.segments < len(l.route.segments) && l.route.segments[l.segments][0].kind == restOfPath
}

// params returns the parameters of a path that the route matches.
func (l *leaf[T]) params(path []string) (out []Param) {
	for i, s := range l.route.segments {
		switch p := s[0]; {
		case i < len(path) && p.kind == restOfPath:
			out = append(out, Param{p.name, strings.Join(path[i:], "/")})
		case i < len(path) && len(s) > 1:
			values, _ := s.capture(path[i])
			out = append(out, values...)
		case i < len(path) && p.name != "":
			out = append(out, Param{p.name, path[i]})
		case i >= len(path) && p.def != nil:
			out = append(out, Param{p.name, *p.def})
		}
	}
	return out
}

// matches reports whether a segment of a path fits.
func (s segment) matches(text string) bool {
	if len(s) == 1 {
		return s[0].allows(text)
	}
	_, ok := s.capture(text)
	return ok
}

func (p part) allows(value string) bool {
	for _, c := range p.checks {
		if !c.holds(value) {
			return false
		}
	}
	return true
}

// capture splits a segment of a path at the literals of a segment with several parts. The last
// occurrence of a literal counts.
func (s segment) capture(text string) (values []Param, ok bool) {
	for i := len(s) - 1; i >= 0; i-- {
		p := s[i]
		switch {
		case p.name == "":
			if len(text) < len(p.literal) || !strings.EqualFold(text[len(text)-len(p.literal):], p.literal) {
				return nil, false
			}
			text = text[:len(text)-len(p.literal)]
			continue
		case i > 0:
			before := s[i-1].literal
			at := lastIndexFold(text, before)
			if at < 0 {
				return nil, false
			}
			values, text = append(values, Param{p.name, text[at+len(before):]}), text[:at+len(before)]
		default:
			values, text = append(values, Param{p.name, text}), ""
		}
		if last := values[len(values)-1]; last.Value == "" || !p.allows(last.Value) {
			return nil, false
		}
	}
	slices.Reverse(values)
	return values, text == ""
}

// lastIndexFold returns the last place of a literal in a text, ignoring case; -1 if it does
// not.
func lastIndexFold(text, literal string) int {
	for at := len(text) - len(literal); at >= 0; at-- {
		if strings.EqualFold(text[at:at+len(literal)], literal) {
			return at
		}
	}
	return -1
}

// splitPath returns the segments of a path. An encoded slash stays encoded, so that no value of a
// parameter has more of a path than its segment. ok is false if the path has an empty segment, or
// too many.
func splitPath(u *url.URL, to []string) (segments []string, ok bool) {
	path, encoded := u.Path, false
	if u.RawPath != "" {
		path, encoded = u.RawPath, true
	}
	path = strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/")
	for path != "" {
		part, rest, more := strings.Cut(path, "/")
		if part == "" || len(to) == maxSegments || more && rest == "" {
			return nil, false
		}
		if encoded {
			part = decodeSegment(part)
		}
		to, path = append(to, part), rest
	}
	return to, true
}

// decodeSegment decodes a segment, except for slashes.
func decodeSegment(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	text = strings.NewReplacer("%2F", "%252F", "%2f", "%252f").Replace(text)
	if decoded, err := url.PathUnescape(text); err == nil {
		return decoded
	}
	return text // not possible: the URL was parsed
}
