package hostkeys

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestSpans(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"00:00:30": 30 * time.Second, "1:2:3": time.Hour + 2*time.Minute + 3*time.Second, "00:05": 5 * time.Minute, "2.03:00:00": 51 * time.Hour,
		"00:00:00.1": 100 * time.Millisecond, "00:00:00.0010000": time.Millisecond, "-00:00:00.0010000": -time.Millisecond, "1": 24 * time.Hour,
	} {
		if got, err := ParseSpan(text); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	if got, err := ParseSpan(" 00:00:01 "); err != nil || got != time.Second {
		t.Errorf("spaces: %v, %v", got, err)
	}
	for _, text := range []string{"", "5m", "24:00:00", "00:60:00", "00:00:60", "0:0:0:0", "-1", "999999999", "00:00:00.12345678"} {
		if got, err := ParseSpan(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// docs/azure-functions.md has the table of Keys.
func TestTableOfKeys(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/azure-functions.md")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for _, k := range Keys() {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", k.Name, k.Use, k.How)
	}
	if !strings.Contains(string(text), table.String()) {
		t.Errorf("the page lacks this table:\n%s", table.String())
	}
}
