package term

import "testing"

func TestPalette(t *testing.T) {
	for _, c := range []struct {
		name     string
		terminal bool
		env      map[string]string
		want     string
	}{
		{"terminal", true, map[string]string{"TERM": "xterm"}, "\x1b[31mtext\x1b[0m"},
		{"no terminal", false, map[string]string{"TERM": "xterm"}, "text"},
		{"NO_COLOR", true, map[string]string{"NO_COLOR": "1"}, "text"},
		{"empty NO_COLOR", true, map[string]string{"NO_COLOR": ""}, "\x1b[31mtext\x1b[0m"},
		{"dumb", true, map[string]string{"TERM": "dumb"}, "text"},
	} {
		p := NewPalette(c.terminal, func(name string) (string, bool) { v, ok := c.env[name]; return v, ok })
		if got := p.Apply(Red, "text"); got != c.want || p.HasColor() != (c.want != "text") {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := p.Apply(Plain, "text") + p.Apply(Red, ""); got != "text" {
			t.Errorf("%s: without a style or a text: %q", c.name, got)
		}
	}
}
