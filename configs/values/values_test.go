package values

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	for text, want := range map[string]struct {
		d    time.Duration
		back string
	}{
		"5m": {5 * time.Minute, "5m"}, "1h": {time.Hour, "1h"}, "1h30m": {90 * time.Minute, "1h30m"}, "90s": {90 * time.Second, "1m30s"}, "0s": {0, "0s"}, "500ms": {500 * time.Millisecond, "500ms"},
	} {
		d, err := ParseDuration(text)
		if err != nil || d.D() != want.d || d.String() != want.back {
			t.Errorf("%s: %v, %v; want %v, printed as %s", text, d, err, want.d, want.back)
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Errorf("%s reads back as %v, %v", d, again, err)
		}
	}
	if _, err := ParseDuration("5"); err == nil || !strings.Contains(err.Error(), `"5" is not a duration; write 500ms`) {
		t.Errorf("5: %v", err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]struct {
		n    Size
		back string
	}{
		"512KiB": {512 << 10, "512KiB"}, "1 MiB": {1 << 20, "1MiB"}, "1.5MiB": {3 << 19, "1536KiB"}, "100kB": {100_000, "100kB"}, "2GB": {2e9, "2GB"}, "7B": {7, "7B"}, "0B": {0, "0B"},
	} {
		n, err := ParseSize(text)
		if err != nil || n != want.n || n.String() != want.back {
			t.Errorf("%s: %d, printed as %s, %v; want %d, %s", text, n, n, err, want.n, want.back)
		}
		if again, err := ParseSize(n.String()); err != nil || again != n {
			t.Errorf("%s reads back as %d, %v", n, again, err)
		}
	}
	for _, text := range []string{"", "5", "-1MiB", "1 MB MB", "1TB", "1e9B", "99999999999999999999GiB", "0x5B"} {
		if n, err := ParseSize(text); err == nil || !strings.Contains(err.Error(), "is not a size") {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

func TestPrefetches(t *testing.T) {
	for text, want := range map[string]Prefetch{"auto": PrefetchAuto, "0": 0, "1000000": 1_000_000} {
		if p, err := ParsePrefetch(text); err != nil || p != want || p.String() != text {
			t.Errorf("%s: %d, %v", text, p, err)
		}
	}
	for text, want := range map[string]Spare{"auto": SpareAuto, "0": 0, "1": 1} {
		if s, err := ParseSpare(text); err != nil || s != want || s.String() != text {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	if s, err := ParseSpare("2"); err == nil {
		t.Errorf("2 spare workers are %d", s)
	}
	for _, text := range []string{"", "-1", "1000001", "Auto", "1.5"} {
		if p, err := ParsePrefetch(text); err == nil {
			t.Errorf("%q is %d", text, p)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	type holder struct{ Password Secret }
	h := holder{"hunter2"}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := h.Password.MarshalYAML()
	for how, printed := range map[string]string{
		"%v": fmt.Sprintf("%v", h), "%+v": fmt.Sprintf("%+v", h), "%#v": fmt.Sprintf("%#v", h), "Sprint": fmt.Sprint(h.Password), "JSON": string(text), "YAML": fmt.Sprint(yaml, err),
	} {
		if strings.Contains(printed, "hunter2") || !strings.Contains(printed, "***") {
			t.Errorf("%s prints %s", how, printed)
		}
	}
	if got := Secret("").String(); got != "" {
		t.Errorf("no secret is printed as %q", got)
	}
}

func TestExpand(t *testing.T) {
	env := func(name string) (string, bool) {
		value, found := map[string]string{"HOST": "example.org", "EMPTY": "", "NESTED": "${HOST}"}[name]
		return value, found
	}
	for text, want := range map[string]string{
		"plain": "plain", "${HOST}:80": "example.org:80", "a$$b": "a$b", "${MISSING:-x}": "x", "${EMPTY:-x}": "x", "${EMPTY}": "", "${NESTED}": "${HOST}", "$${HOST}": "${HOST}",
	} {
		if got, err := Expand(text, env); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{"$HOST": "a $ without a name", "${MISSING}": "MISSING is not set; set it, or write ${MISSING:-default}", "${1}": "a $ without a name"} {
		if _, err := Expand(text, env); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
}
