package main

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"time"
)

// frame is the contents of the screen from a time on.
type frame struct {
	at   time.Duration
	rows [][]word
}

// word is text without wide gaps, in one style.
type word struct {
	column int
	text   string
	class  string // letters for its color and weight
}

func (f frame) equals(other frame) bool {
	return slices.EqualFunc(f.rows, other.rows, slices.Equal)
}

const (
	cellWidth  = 8.43 // of a character at 14 px in the usual monospaced fonts
	cellHeight = 19.0
	margin     = 14.0
	bar        = 30.0 // the bar of the window
	// lastly is how long the last frame is shown before the animation starts again.
	lastly = 5 * time.Second
)

// style has the colors of GitHub's dark theme, which are readable in both of its themes.
const style = `text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d1d7e0;white-space:pre}
.o{font-weight:700}.r{fill:#ff7b72}.g{fill:#56d364}.y{fill:#e3b341}.b{fill:#79c0ff}.m{fill:#d2a8ff}.c{fill:#56d4dd}`

// drawSVG returns frames as an animated picture. The frames are stacked vertically, and the picture
// moves from one to the next. A viewer without animations shows the last frame.
func drawSVG(frames []frame, columns, rows int) string {
	width, height := 2*margin+float64(columns)*cellWidth, bar+margin+float64(rows)*cellHeight
	length := frames[len(frames)-1].at + lastly
	screen := float64(rows) * cellHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" aria-label="A recording of a terminal">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<style>%s\n@keyframes f{", style)
	for i, f := range frames {
		fmt.Fprintf(&b, "%.2f%%{transform:translateY(%.0fpx)}", 100*f.at.Seconds()/length.Seconds(), -float64(i)*screen)
	}
	last := -float64(len(frames)-1) * screen
	fmt.Fprintf(&b, "100%%{transform:translateY(%.0fpx)}}\n.s{transform:translateY(%.0fpx);animation:f %.2fs step-end infinite}\n", last, last, length.Seconds())
	b.WriteString("@media (prefers-reduced-motion:reduce){.s{animation:none}}</style>\n")
	fmt.Fprintf(&b, `<rect width="%.0f" height="%.0f" rx="8" fill="#151b23"/>`, width, height)
	for i, color := range []string{"#ff5f57", "#febc2e", "#28c840"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="15" r="5.5" fill="%s"/>`, 18+18*i, color)
	}
	fmt.Fprintf(&b, "\n"+`<svg x="%.0f" y="%.0f" width="%.0f" height="%.0f"><g class="s">`+"\n", margin, bar, float64(columns)*cellWidth, screen)
	for i, f := range frames {
		for y, words := range f.rows {
			if len(words) == 0 {
				continue
			}
			fmt.Fprintf(&b, `<text y="%.0f">`, float64(i)*screen+float64(y)*cellHeight+14)
			for _, w := range words {
				class := ""
				if w.class != "" {
					class = ` class="` + strings.Join(strings.Split(w.class, ""), " ") + `"`
				}
				fmt.Fprintf(&b, `<tspan x="%.0f"%s>`, float64(w.column)*cellWidth, class)
				_ = xml.EscapeText(&b, []byte(w.text)) // to memory
				b.WriteString("</tspan>")
			}
			b.WriteString("</text>\n")
		}
	}
	b.WriteString("</g></svg>\n</svg>\n")
	return b.String()
}
