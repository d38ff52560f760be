package decode

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/values"
)

// job is a struct with each tag.
type job struct {
	Name   string          `yaml:"name" required:"true" desc:"a name"`
	Steps  map[string]step `yaml:"steps"`
	After  []point         `yaml:"after" single:"true"`
	Room   room            `yaml:"room"`
	Scale  scale           `yaml:"scale"`
	Hidden string          `yaml:"-"`
}

type step struct {
	Run     values.Strings  `yaml:"run"`
	Size    values.Size     `yaml:"size" default:"1MiB" max:"1GiB"`
	Timeout values.Duration `yaml:"timeout" default:"5s"`
	Times   int             `yaml:"times" default:"3" zero:"auto" min:"0" max:"9"`
	Ports   values.Ports    `yaml:"ports"`
}

type point struct {
	X *int `yaml:"x"`
}

type room struct {
	Profile string `yaml:"profile" alone:"off,strict" enum:"off,strict"`
	Read    string `yaml:"read"`
}

type scale struct {
	Min      int  `yaml:"min" default:"1"`
	Max      int  `yaml:"max" default:"1"`
	External bool `yaml:"-" alone:"external"`
}

func parse(text string) (job, error) {
	var into job
	Defaults(&into)
	s := problems.New("x.yaml", []byte(text), ".", func(string) (string, bool) { return "", false })
	Document(s, &into, nil)
	return into, s.Err()
}

func TestDocument(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"{}", "has no key name"},
		{"name: x\nnames: y", "has no key \"names\"; did you mean name?"},
		{"name: 7", "name must be a string"},
		{"name: x\nsteps: {a: {times: 10}}", "steps.a.times is 10; the maximum is 9"},
		{"name: x\nsteps: {a: {timeout: soon}}", "is not a duration"},
		{"name: x\nroom: wide", "room is wide; allowed: off, strict"},
		{"name: x\nscale: much", "scale is \"much\"; it must be {min: N, max: N}, or the word external"},
		{"name: x\n---\nname: y", "a second document begins here"},
		{"name: ${MISSING}", "MISSING is not set"},
	} {
		if _, err := parse(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; it should have %s", c.text, err, c.want)
		}
	}
	got, err := parse("name: x\nroom: strict\nscale: external\nafter: {x: 1}\nsteps: {a: {run: one, times: auto, ports: any}}")
	if err != nil {
		t.Fatal(err)
	}
	a := got.Steps["a"]
	if got.Room.Profile != "strict" || got.Scale != (scale{1, 1, true}) || len(got.After) != 1 || *got.After[0].X != 1 {
		t.Errorf("values instead of structs: %+v", got)
	}
	if len(a.Run) != 1 || a.Size != 1<<20 || a.Timeout.String() != "5s" || a.Times != 0 || !a.Ports.Any() {
		t.Errorf("values and defaults: %+v", a)
	}
}

func TestSchema(t *testing.T) {
	text, err := Schema("job", new(job), true)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) || strings.Contains(string(text), "External") || strings.Contains(string(text), "Hidden") {
		t.Errorf("%s", text)
	}
	for _, want := range []string{`"title": "job"`, `"description": "a name"`, `"default": "5s"`, `"external"`, `"strict"`, `"minItems": 1`, `"maximum": 9`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the schema lacks %s", want)
		}
	}
	if text, err := Schema("job", new(job), false); err != nil || strings.Contains(string(text), `"required"`) {
		t.Errorf("%v: %s", err, text)
	}
}

// TestNestedTooDeep parses texts for which the parser would need gigabytes.
func TestNestedTooDeep(t *testing.T) {
	lines := func(format string, n int) string {
		var out strings.Builder
		for i := range n {
			_, _ = fmt.Fprintf(&out, format, strings.Repeat(" ", i))
		}
		return out.String()
	}
	for name, text := range map[string]string{
		"brackets": strings.Repeat("[", 100_000), "braces": strings.Repeat("{a: ", 10_000), "dashes": strings.Repeat("- ", 10_000),
		"keys": strings.Repeat("? ", 10_000), "anchors": strings.Repeat("&a ", 10_000), "tags": strings.Repeat("!a ", 10_000),
		"mixed": strings.Repeat("- [", 10_000), "lists in lists": strings.Repeat("[[],", 10_000), "indented keys": lines("%sa:\n", 1200), "indented dashes": lines("%s-\n", 1200),
		"just too deep": strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parse(text)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "nested deeper than 64") {
			t.Errorf("%s: %.200v", name, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 200<<20 {
			t.Errorf("%s: %d MiB were allocated for %d bytes", name, used>>20, len(text))
		}
	}
	if _, err := parse(lines("%[1]sk: 1\n", 1) + strings.Repeat("k: 1\n", maxKeys+1)); err == nil || !strings.Contains(err.Error(), "more than 5000 keys") {
		t.Errorf("many keys: %.200v", err)
	}
	deep := "x: " + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1) + "\n"
	if _, err := parse(deep); err == nil || strings.Contains(err.Error(), "nested") {
		t.Errorf("%d levels: %v", maxDepth, err)
	}
	var wide strings.Builder
	wide.WriteString("name: x\nsteps:\n")
	for i := range 1000 {
		_, _ = fmt.Fprintf(&wide, "  f%d:\n    run: [echo]\n    size: 1MiB\n", i)
	}
	if _, err := parse(wide.String()); err != nil {
		t.Errorf("1,000 keys: %.300v", err)
	}
}

// TestAliasesMultiply parses a text whose aliases represent 10^9 values.
func TestAliasesMultiply(t *testing.T) {
	text := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	if _, err := parse(text); err == nil {
		t.Error("it was read")
	}
	if err := CheckPlain([]byte(text)); err == nil || !strings.Contains(err.Error(), "alias") {
		t.Errorf("CheckPlain: %v", err)
	}
}
