package flamegraph

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

// testProfile makes a profile of stacks such as "main;inner", the outermost first, with their milliseconds.
func testProfile(stacks map[string]int64) *profile.Profile {
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "wall", Unit: "nanoseconds"}}}
	locations := make(map[string]*profile.Location)
	for stack, ms := range stacks {
		s := &profile.Sample{Value: []int64{ms, ms * 1_000_000}}
		for name := range strings.SplitSeq(stack, ";") {
			if locations[name] == nil {
				id := uint64(len(locations) + 1)
				f := &profile.Function{ID: id, Name: name, Filename: "/app/" + name + ".py"}
				locations[name] = &profile.Location{ID: id, Line: []profile.Line{{Function: f, Line: int64(id)}}}
				p.Function, p.Location = append(p.Function, f), append(p.Location, locations[name])
			}
			s.Location = append([]*profile.Location{locations[name]}, s.Location...)
		}
		p.Sample = append(p.Sample, s)
	}
	return p
}

// drawn is a box as an XML parser reads it.
type drawn struct {
	X     float64 `xml:"data-x,attr"`
	W     float64 `xml:"data-w,attr"`
	Depth int     `xml:"data-d,attr"`
	Title string  `xml:"title"`
	Text  string  `xml:"text"`
}

// parse checks that an SVG is well-formed, and returns its boxes by name.
func parse(t *testing.T, svg string) map[string]drawn {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local != "svg" && start.Name.Space != "http://www.w3.org/2000/svg" {
			t.Errorf("an element %v", start.Name)
		}
	}
	var all struct {
		Group struct {
			Boxes []drawn `xml:"g"`
		} `xml:"g"`
	}
	if err := xml.Unmarshal([]byte(svg), &all); err != nil {
		t.Fatal(err)
	}
	out := make(map[string]drawn)
	for _, b := range all.Group.Boxes {
		name, _, _ := strings.Cut(b.Title, "\n")
		if _, twice := out[name]; twice {
			t.Errorf("two boxes %q", name)
		}
		out[name] = b
	}
	return out
}

func TestRender(t *testing.T) {
	svg := Render(testProfile(map[string]int64{"f": 100, "f;query": 600, "f;query;recv": 200, "f;encode": 100}), Titles{"drover profile f", "10 calls"})
	boxes := parse(t, svg)
	for name, want := range map[string]drawn{
		"all":    {0, 1, 0, "all\n1s, 100.0 %, 1000 samples", "all"},
		"f":      {0, 1, 1, "", "f"},
		"encode": {0, 0.1, 2, "", "encode"},
		"query":  {0.1, 0.8, 2, "", "query"},
		"recv":   {0.1, 0.2, 3, "", "recv"},
	} {
		got := boxes[name]
		if got.Depth != want.Depth || fmt.Sprintf("%.3f %.3f", got.X, got.W) != fmt.Sprintf("%.3f %.3f", want.X, want.W) || got.Text != want.Text || want.Title != "" && got.Title != want.Title {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
	if title := boxes["query"].Title; !strings.HasPrefix(title, "query\n/app/query.py:") || !strings.HasSuffix(title, "800ms, 80.0 %, 800 samples") {
		t.Errorf("the title is %q", title)
	}
	for _, part := range []string{"<title>drover profile f</title>", ">10 calls</text>", "<script><![CDATA["} {
		if !strings.Contains(svg, part) {
			t.Errorf("%s is not in the file", part)
		}
	}
}

// Names come from the code of apps, which may be hostile: they are texts, and cannot change the page.
func TestHostileNames(t *testing.T) {
	hostile := `"><script>alert(1)</script>]]>&lt` + "\x00\x1b[2J\n\u202egnp.exe\u2066\u200b\xff\ufffe\U000e0001"
	svg := Render(testProfile(map[string]int64{hostile + ";inner": 5}), Titles{hostile, hostile})
	boxes := parse(t, svg)
	if len(boxes) != 3 {
		t.Errorf("%d boxes", len(boxes))
	}
	if n := strings.Count(svg, "<script"); n != 1 {
		t.Errorf("%d scripts", n)
	}
	if strings.ContainsAny(svg, "\x00\x1b\u202e\u2066\u200b\ufffe\U000e0001") {
		t.Error("invisible characters are in the file")
	}
	want := `"><script>alert(1)</script>]]>&lt` + "\ufffd\ufffd[2J\ufffd\ufffdgnp.exe\ufffd\ufffd\ufffd\ufffd\ufffd"
	if _, found := boxes[want]; !found {
		t.Errorf("%q is not among %v", want, boxes)
	}
}

// The size of the file is bounded, also for names and for the number of boxes.
func TestBoundsOfAFile(t *testing.T) {
	stacks := map[string]int64{strings.Repeat("long", 1000): 1_000_000}
	for i := range 2000 {
		stacks[fmt.Sprintf("narrow%d", i)] = 1
		stacks[fmt.Sprintf("wide%d", i)+strings.Repeat(";deep", 10)] = 9000
	}
	p := testProfile(stacks)
	boxes := newTree(p).layOut()
	if len(boxes) != maxBoxes {
		t.Errorf("%d boxes", len(boxes))
	}
	for _, b := range boxes {
		if name := b.name(); strings.HasPrefix(name, "narrow") || len(name) > maxName {
			t.Fatalf("a box %q", name)
		}
	}
	if n := len(Render(p, Titles{})); n > 20<<20 {
		t.Errorf("%d bytes", n)
	}
}

func TestInlinedFunctions(t *testing.T) {
	p := testProfile(map[string]int64{"f;outer": 10})
	inner := &profile.Function{ID: 9, Name: "example.com/pkg.(*T).inner", Filename: "/root/go/pkg/mod/t.go"}
	at := p.Sample[0].Location[0]
	at.Line = append([]profile.Line{{Function: inner, Line: 7}}, at.Line...)
	boxes := parse(t, Render(p, Titles{}))
	if got := boxes["example.com/pkg.(*T).inner"]; got.Depth != 3 || got.Text != "pkg.(*T).inner" {
		t.Errorf("%+v", got)
	}
}

// The app's code, libraries and the language have different colors.
func TestColors(t *testing.T) {
	hue := func(file string) string {
		color := (&node{function: &profile.Function{Name: "f", Filename: file}}).color()
		return color[:strings.IndexByte(color, ',')]
	}
	app, library, language := hue("/srv/app/a.py"), hue("/v/lib/python3.13/site-packages/a.py"), hue("/usr/lib/python3.13/json.py")
	if app == library || app == language || library == language || language != hue("") || library != hue("/app/node_modules/a.js") {
		t.Errorf("the colors are %s, %s and %s", app, library, language)
	}
}
