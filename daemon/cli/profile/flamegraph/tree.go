package flamegraph

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/pprof/profile"
)

const (
	inner    = 1180.0 // the width of all boxes together, in pixels
	leastBox = 0.25   // narrower boxes are not drawn
	maxBoxes = 20_000 // the widest are drawn
	maxName  = 300    // characters of a name
)

// node is a function as called by the functions above it.
type node struct {
	function *profile.Function // nil: the root
	samples  int64
	time     int64 // in nanoseconds
	lines    map[int64]int64
	children map[*profile.Function]*node
}

type tree struct{ root *node }

// newTree adds up the samples by call. Lines of one function are one node.
func newTree(p *profile.Profile) tree {
	root := &node{}
	last := len(p.SampleType) - 1
	for _, s := range p.Sample {
		samples, time := s.Value[0], s.Value[last]
		at := root
		at.add(samples, time, 0)
		for i := len(s.Location) - 1; i >= 0; i-- {
			lines := s.Location[i].Line
			for j := len(lines) - 1; j >= 0; j-- { // the last one is the caller of the inlined ones before it
				if lines[j].Function == nil {
					continue
				}
				at = at.child(lines[j].Function)
				at.add(samples, time, lines[j].Line)
			}
		}
	}
	return tree{root}
}

func (n *node) child(f *profile.Function) *node {
	if n.children == nil {
		n.children = make(map[*profile.Function]*node)
	}
	if n.children[f] == nil {
		n.children[f] = &node{function: f, lines: make(map[int64]int64)}
	}
	return n.children[f]
}

func (n *node) add(samples, time, line int64) {
	n.samples += samples
	n.time += time
	if line > 0 {
		n.lines[line] += time
	}
}

// sorted returns the children, by name and file: as in all flame graphs, the horizontal axis is not
// the time of the day.
func (n *node) sorted() []*node {
	out := make([]*node, 0, len(n.children))
	for _, c := range n.children {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *node) int {
		return cmp.Or(cmp.Compare(a.function.Name, b.function.Name), cmp.Compare(a.function.Filename, b.function.Filename), cmp.Compare(a.function.ID, b.function.ID))
	})
	return out
}

// box is a node with its place: the share of the whole width at which it begins, and its width.
type box struct {
	*node
	from, share float64
	depth       int
}

// layOut returns the boxes that are drawn: no narrow ones, and not more than maxBoxes.
func (t tree) layOut() []box {
	var out []box
	var place func(n *node, from float64, depth int)
	place = func(n *node, from float64, depth int) {
		share := float64(n.time) / float64(max(t.root.time, 1))
		if share*inner < leastBox {
			return
		}
		out = append(out, box{n, from, share, depth})
		for _, c := range n.sorted() {
			place(c, from, depth+1)
			from += float64(c.time) / float64(max(t.root.time, 1))
		}
	}
	place(t.root, 0, 0)
	if len(out) > maxBoxes {
		slices.SortStableFunc(out, func(a, b box) int { return cmp.Compare(b.share, a.share) }) // a caller is never narrower
		out = out[:maxBoxes]
	}
	return out
}

func (n *node) name() string {
	if n.function == nil {
		return "all"
	}
	return visible(n.function.Name)
}

// maxLines is the number of lines in the title of a box.
const maxLines = 5

// describe returns the text that a browser shows for a box.
func (n *node) describe(whole int64) string {
	var out strings.Builder
	out.WriteString(n.name() + "\n")
	if n.function != nil {
		out.WriteString(visible(n.function.Filename) + n.linesText() + "\n")
	}
	samples := "samples"
	if n.samples == 1 {
		samples = "sample"
	}
	_, _ = fmt.Fprintf(&out, "%v, %.1f %%, %d %s", time.Duration(n.time).Round(time.Millisecond), 100*float64(n.time)/float64(max(whole, 1)), n.samples, samples)
	return out.String()
}

// linesText returns the lines with the most time, and the share of each.
func (n *node) linesText() string {
	type share struct{ line, time int64 }
	all := make([]share, 0, len(n.lines))
	for line, time := range n.lines {
		all = append(all, share{line, time})
	}
	slices.SortFunc(all, func(a, b share) int { return cmp.Or(cmp.Compare(b.time, a.time), cmp.Compare(a.line, b.line)) })
	if len(all) == 1 {
		return fmt.Sprintf(":%d", all[0].line)
	}
	var out strings.Builder
	for _, s := range all[:min(len(all), maxLines)] {
		_, _ = fmt.Fprintf(&out, "\n  line %d: %.0f %%", s.line, 100*float64(s.time)/float64(max(n.time, 1)))
	}
	if more := len(all) - maxLines; more > 0 {
		_, _ = fmt.Fprintf(&out, "\n  and %d more lines", more)
	}
	return out.String()
}

// libraries and standard are parts of paths that tell code of libraries, and of the language, from that of the app.
var (
	libraries = []string{"/site-packages/", "/dist-packages/", "/node_modules/", "/pkg/mod/"}
	standard  = []string{"/lib/python", "<frozen", "<string>", "node:", "/src/runtime/", "/go/src/"}
)

// color returns the fill of a box: orange for the app's code, green for libraries, blue for the language; each in
// a shade that depends on the name.
func (n *node) color() string {
	if n.function == nil {
		return "#ddd"
	}
	contains := func(part string) bool { return strings.Contains(n.function.Filename, part) }
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(n.function.Name)) // never fails
	shade := int(sum.Sum32() % 16)
	hue, light := 22+shade, 62+shade/2
	switch {
	case slices.ContainsFunc(libraries, contains):
		hue = 80 + shade
	case n.function.Filename == "" || slices.ContainsFunc(standard, contains):
		hue = 195 + shade
	}
	return fmt.Sprintf("hsl(%d,75%%,%d%%)", hue, light)
}

// visible returns a text in which characters that are invisible, change the direction of writing, or are not
// allowed in XML, are replaced.
func visible(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, text)
	if utf8.RuneCountInString(text) > maxName {
		text = string([]rune(text)[:maxName-3]) + "..."
	}
	return text
}
