// Package flamegraph draws the stacks of a profile as an SVG that a browser opens: each box is a function, as
// wide as the time of its samples, below the function that called it. The file needs nothing else. It has titles
// for the mouse, zooms at a click, and searches. The package does no I/O and holds no state.
package flamegraph

import (
	_ "embed"
	"fmt"
	"html"
	"strings"
	"unicode/utf8"

	"github.com/google/pprof/profile"

	"github.com/drover-run/drover/internal/chart"
)

// The sizes of the drawing, in pixels: its width, its margin, the height of a box, the space for the titles above the
// boxes, and the width of a character. The script has some of them, too.
const (
	width, margin  = inner + 2*margin, 10.0
	row, head      = 18.0, 74.0
	character      = 6.6
	textOffset     = 13.0 // of a baseline in a box
	leastTextChars = 3
)

// script zooms and searches.
//
//go:embed flamegraph.js
var script string

// Titles are the texts above the graph.
type Titles struct{ Title, Subtitle string }

// Render returns the SVG of a profile whose last kind of sample is a time in nanoseconds.
func Render(p *profile.Profile, titles Titles) string {
	t := newTree(p)
	boxes := t.layOut()
	depth := 0
	for _, b := range boxes {
		depth = max(depth, b.depth)
	}
	height := head + float64(depth+1)*row + margin
	var d chart.Drawing
	d.Put(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" font-family="Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="11">`, width, height, width, height)
	d.Put(`<title>%s</title>`, visible(titles.Title))
	d.Put(`<style>.box{cursor:pointer} .box:hover rect{stroke:#000} .box text{pointer-events:none} .out{display:none} .up rect{opacity:.45} .hit rect{fill:#c4f !important} #search,#reset{cursor:pointer;fill:#06c}</style>`)
	d.Put(`<rect x="0" y="0" width="100%%" height="100%%" fill="#fff"/>`)
	d.Text(margin, 22, `font-size="16" font-family="sans-serif"`, visible(titles.Title))
	d.Text(margin, 42, `font-family="sans-serif" fill="#555"`, visible(titles.Subtitle))
	d.Text(margin, 62, `id="status" fill="#555"`, "The wider a box, the more time. Point at a box for details, click it to zoom.")
	d.Text(width-margin, 22, `id="search" text-anchor="end"`, "Search")
	d.Text(width-margin, 42, `id="reset" text-anchor="end"`, "Reset")
	d.Put(`<g id="boxes">`)
	for _, b := range boxes {
		drawBox(&d, b, t.root.time)
	}
	d.Put(`</g>`)
	_, _ = d.WriteString("<script><![CDATA[\n" + script + "]]></script>\n</svg>\n")
	return d.String()
}

// drawBox draws one box. The script reads its extent from data-x and data-w, as shares of the whole.
func drawBox(d *chart.Drawing, b box, whole int64) {
	x, w, y := margin+b.from*inner, b.share*inner, head+float64(b.depth)*row
	d.Put(`<g class="box" data-x="%.6f" data-w="%.6f" data-d="%d">`, b.from, b.share, b.depth)
	_, _ = fmt.Fprintf(d, "<title>%s</title>", html.EscapeString(b.describe(whole)))
	d.Put(`<rect x="%.2f" y="%.1f" width="%.2f" height="%.1f" rx="2" fill="%s"/>`, x, y, w, row-1, b.color())
	label := b.name()
	label = label[strings.LastIndexByte(label, '/')+1:] // of a Go function, without the path of its package
	d.Put(`<text x="%.2f" y="%.1f" data-n="%s">%s</text></g>`, x+3, y+textOffset, label, shorten(label, w))
}

// shorten returns a text that fits into a box, or nothing.
func shorten(text string, w float64) string {
	n := int((w - 6) / character)
	switch {
	case n < leastTextChars:
		return ""
	case utf8.RuneCountInString(text) <= n:
		return text
	}
	return string([]rune(text)[:n-2]) + ".."
}
