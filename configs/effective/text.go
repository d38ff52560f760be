package effective

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// commentAt is the column of the origins, unless the value is longer.
const commentAt = 48

// WithoutDefaults returns the values that are set.
func WithoutDefaults(values []Value) []Value {
	return slices.DeleteFunc(slices.Clone(values), func(v Value) bool { return v.From == FromDefault })
}

// WriteJSON writes one object per line.
func WriteJSON(w io.Writer, values []Value) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	for _, v := range values {
		if err := out.Encode(v); err != nil {
			return fmt.Errorf("writing the values: %w", err)
		}
	}
	return nil
}

// WriteText writes values as YAML, each with its origin in a comment.
func WriteText(w io.Writer, values []Value) error {
	var open []string // the keys above the last line
	var out strings.Builder
	for _, v := range values {
		keys := v.keys
		same := 0
		for same < len(open) && same < len(keys)-1 && open[same] == keys[same] {
			same++
		}
		for i := same; i < len(keys)-1; i++ {
			out.WriteString(indent(i) + keyText(keys[i]) + "\n")
		}
		open = keys[:len(keys)-1]
		line := fmt.Sprintf("%s%s %s", indent(len(keys)-1), keyText(keys[len(keys)-1]), v.Text)
		pad := max(1, commentAt-utf8.RuneCountInString(line))
		from := v.From
		switch {
		case v.Where != "" && (v.From == FromDefault || v.From == FromApp):
			from += ": " + v.Where
		case v.Where != "":
			from = v.Where
		}
		out.WriteString(line + strings.Repeat(" ", pad) + "# " + from + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

// keyText returns a key as written; the keys of an item are below it.
func keyText(key string) string {
	if strings.HasPrefix(key, "[") {
		return "- # " + strings.Trim(key, "[]")
	}
	return quoted(key) + ":"
}
