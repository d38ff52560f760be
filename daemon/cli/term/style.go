package term

// Style is the look of text on a terminal. A Palette applies it.
type Style string

// The styles are attributes and the eight basic colors, which are readable in every terminal theme. The
// values are the parameters of the escape code SGR.
const (
	Plain   Style = ""
	Bold    Style = "1"
	Dim     Style = "2"
	Reverse Style = "7"
	Red     Style = "31"
	Green   Style = "32"
	Yellow  Style = "33"
	Blue    Style = "34"
	Magenta Style = "35"
	Cyan    Style = "36"
	BoldRed Style = "1;31"
)

// Palette applies styles if it has colors. The zero value does not change text.
type Palette struct{ on bool }

// NewPalette returns the palette for an output. It applies styles if the output is a terminal,
// NO_COLOR is unset or empty (https://no-color.org), and TERM is not dumb.
func NewPalette(isTerminal bool, env func(name string) (value string, found bool)) Palette {
	noColor, _ := env("NO_COLOR")
	kind, _ := env("TERM")
	return Palette{on: isTerminal && noColor == "" && kind != "dumb"}
}

// HasColor reports whether the palette applies styles.
func (p Palette) HasColor() bool { return p.on }

// Apply returns the text in a style. The text must be Printable: the palette does not change it.
func (p Palette) Apply(style Style, text string) string {
	if !p.on || style == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}
