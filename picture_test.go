package main

import (
	"cmp"
	"flag"
	"fmt"
	"html"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// draw makes TestPicture write the picture of the packages.
var draw = flag.Bool("draw", false, "write docs/architecture.svg")

const pictureFile = "docs/architecture.svg"

// TestPicture compares docs/architecture.svg with the imports of the product's packages.
// After a change of imports: go test -run TestPicture . -draw
func TestPicture(t *testing.T) {
	imports := boxImports(t)
	picture := drawPackages(imports)
	if *draw {
		if err := os.WriteFile(pictureFile, []byte(picture), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if readFile(t, pictureFile) != picture {
		t.Errorf("%s is not what the packages import; run: go test -run TestPicture . -draw", pictureFile)
	}
	if !strings.Contains(readFile(t, "docs/architecture.md"), "(architecture.svg)") {
		t.Error("docs/architecture.md does not show architecture.svg")
	}
}

// boxes are the packages in the picture. A package below one of them is part of it. Small packages
// that many others use are omitted, since they would only add arrows.
var (
	boxes = []string{
		"main", "configs", "handlers", "scaler", "triggers", "triggers/natsjs", "triggers/servicebus", "triggers/storagequeue", "triggers/timer", "daemon", "daemon/cli",
		"daemon/internal/admin", "daemon/internal/api", "daemon/internal/apps", "daemon/internal/autoscale", "daemon/internal/dispatch",
		"daemon/internal/instances", "daemon/internal/produce", "daemon/internal/profiles", "daemon/internal/sources", "daemon/internal/status", "daemon/internal/telemetry", "daemon/internal/watch",
	}
	leftOut = []string{
		"daemon/internal/bodymemory", "daemon/internal/buildinfo", "daemon/internal/program", "daemon/internal/tlsconfig",
		"internal/chart", "internal/wheel", "internal/wheel/makewheel", "internal/release", "internal/release/makerelease", "internal/recording",
	}
)

// boxOf returns the box of a package; empty if it is omitted.
func boxOf(t *testing.T, name string) string {
	t.Helper()
	if slices.Contains(leftOut, name) {
		return ""
	}
	box := ""
	for _, b := range boxes {
		if (name == b || strings.HasPrefix(name, b+"/")) && len(b) > len(box) {
			box = b
		}
	}
	if box == "" || box == "daemon" && name != "daemon" {
		t.Fatalf("%s is in no box of the picture: add it to boxes or leftOut", name)
	}
	return box
}

// boxImports returns what each box imports of the others.
func boxImports(t *testing.T) map[string][]string {
	t.Helper()
	out := make(map[string][]string)
	for name, all := range productImports(t) {
		from := boxOf(t, name)
		if from == "" {
			continue
		}
		for _, to := range append(all, name) {
			if box := boxOf(t, to); box != "" && box != from && !slices.Contains(out[from], box) {
				out[from] = append(out[from], box)
			}
		}
		slices.Sort(out[from])
	}
	return out
}

// productImports returns what each package of the product imports of the others, without
// the packages of tests.
func productImports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	short := func(path string) string {
		return cmp.Or(strings.TrimPrefix(strings.TrimPrefix(path, modulePath), "/"), "main")
	}
	imports := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		paths := strings.Fields(line)
		name := short(paths[0])
		if strings.HasSuffix(name, "test") {
			continue
		}
		imports[name] = nil
		for _, path := range paths[1:] {
			if strings.HasPrefix(path, modulePath+"/") {
				imports[name] = append(imports[name], short(path))
			}
		}
	}
	return imports
}

// reduced drops an import if another import of the same package already implies it, so that the
// picture has no more arrows than necessary.
func reduced(imports map[string][]string) map[string][]string {
	reach := make(map[string]map[string]bool)
	var reachOf func(name string) map[string]bool
	reachOf = func(name string) map[string]bool {
		if reach[name] == nil {
			reach[name] = make(map[string]bool)
			for _, to := range imports[name] {
				reach[name][to] = true
				maps.Copy(reach[name], reachOf(to))
			}
		}
		return reach[name]
	}
	out := make(map[string][]string)
	for name, all := range imports {
		out[name] = slices.DeleteFunc(slices.Clone(all), func(to string) bool {
			return slices.ContainsFunc(all, func(other string) bool { return other != to && reachOf(other)[to] })
		})
	}
	return out
}

// rowsOf puts each package below all packages that import it.
func rowsOf(imports map[string][]string) [][]string {
	row := make(map[string]int)
	var place func(name string, at int)
	place = func(name string, at int) {
		if at < row[name] {
			return
		}
		row[name] = at
		for _, to := range imports[name] {
			place(to, at+1)
		}
	}
	place("main", 0)
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(row)) {
		for len(rows) <= row[name] {
			rows = append(rows, nil)
		}
		rows[row[name]] = append(rows[row[name]], name)
	}
	return rows
}

// The sizes of the picture, in pixels.
const (
	pictureWidth  = 1200
	boxHeight     = 28
	rowHeight     = 84
	characterWide = 7
	gapBetween    = 12
)

// drawPackages draws the packages as an SVG: each below its importers, an arrow for an import.
func drawPackages(imports map[string][]string) string {
	imports = reduced(imports)
	rows := rowsOf(imports)
	type point struct{ x, y, width int }
	at := make(map[string]point)
	var out, boxes strings.Builder
	y := 10
	for _, row := range rows {
		slices.SortStableFunc(row, func(a, b string) int { // below those that import it
			middle := func(name string) int {
				sum, n := 0, 0
				for from, to := range imports {
					if slices.Contains(to, name) {
						sum, n = sum+at[from].x, n+1
					}
				}
				return sum / max(n, 1)
			}
			return cmp.Compare(middle(a), middle(b))
		})
		for len(row) > 0 {
			line, width := 0, 0
			for line < len(row) && (line == 0 || width+len(row[line])*characterWide+20 < pictureWidth) {
				width += len(row[line])*characterWide + 20 + gapBetween
				line++
			}
			x := (pictureWidth - width + gapBetween) / 2
			for _, name := range row[:line] {
				wide := len(name)*characterWide + 20
				at[name] = point{x + wide/2, y, wide}
				x += wide + gapBetween
			}
			row = row[line:]
			y += rowHeight
		}
	}
	for _, name := range slices.Sorted(maps.Keys(at)) {
		from := at[name]
		_, _ = fmt.Fprintf(&boxes, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"4\" class=%q/><text x=\"%d\" y=\"%d\">%s</text>\n",
			from.x-from.width/2, from.y, from.width, boxHeight, topOf(name), from.x, from.y+boxHeight/2+4, html.EscapeString(name))
		for _, to := range slices.Sorted(slices.Values(imports[name])) {
			end := at[to]
			start := from.y + boxHeight
			_, _ = fmt.Fprintf(&out, "<path d=\"M%d %d C%d %d %d %d %d %d\" marker-end=\"url(#to)\"/>\n", from.x, start, from.x, (start+end.y)/2, end.x, (start+end.y)/2, end.x, end.y-2)
		}
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="The packages of drover: each is below those that import it">
<style>rect{fill:#fff;stroke:#666}.daemon,.main{fill:#e3eefc}.handlers{fill:#e5f6e5}.triggers{fill:#fdf0d9}.scaler{fill:#f3e6f7}.configs{fill:#eee}
text{font:12px ui-monospace,monospace;text-anchor:middle}path{fill:none;stroke:#999}marker path{fill:#999}</style>
<defs><marker id="to" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0 6 3 0 6z"/></marker></defs>
<rect width="100%%" height="100%%" style="stroke:none"/>
%s%s</svg>
`, pictureWidth, y-rowHeight+boxHeight+10, out.String(), boxes.String())
}

func topOf(name string) string {
	top, _, _ := strings.Cut(name, "/")
	return top
}
