package values

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"orders", "Ünïcode", "a-b_c9", "订单", strings.Repeat("n", maxName)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "..", "a/b", `a\b`, "a.b", "a b", "a\tb", "a\x00b", "a\x1b[31m", "a\u202eb", "a\u2066b", "a\u200bb", "a\u00a0b", "a\u2028b", "a\xff", "-rf", strings.Repeat("n", maxName+1),
	} {
		if err := CheckName(name); err == nil {
			t.Errorf("%q is accepted", name)
		} else if strings.ContainsAny(err.Error(), "\x00\x1b\u202e\u200b") || len(err.Error()) > 400 {
			t.Errorf("%q: the error repeats it: %q", name, err)
		}
	}
}
