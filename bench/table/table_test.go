package table

import (
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/bench/load"
)

func standard() Command {
	return Command{
		Setup: []string{"python", "go"}, Stream: []string{"work-queue"}, Server: []string{"embedded"}, Work: []string{"cpu", "wait"},
		Time: []time.Duration{0, time.Millisecond, 100 * time.Millisecond}, Size: []int{128}, Load: []int{0, 1_000_000}, Rounds: 1, For: time.Second,
	}
}

// TestRows checks that a no-op is one row, and that no row asks for more than the cores can do.
func TestRows(t *testing.T) {
	c := standard()
	contenders, err := c.contenders()
	if err != nil {
		t.Fatal(err)
	}
	rows, err := c.rows(contenders)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for _, r := range rows {
		seen[r.name+": "+r.cell.String()]++
	}
	for name, n := range map[string]int{
		"python: no-op, 128 B, full queue": 1, "go: cpu 1ms, 128 B, full queue": 1, "go: cpu 1ms, 128 B, 1000000/s": 0, "python: wait 100ms, 128 B, 1000000/s": 1,
	} {
		if seen[name] != n {
			t.Errorf("%s: %d rows, want %d; all: %v", name, seen[name], n, seen)
		}
	}
}

func TestNamesOfContenders(t *testing.T) {
	c := standard()
	c.Setup, c.Stream, c.Server = []string{"go"}, []string{"work-queue", "limits"}, []string{"embedded", "external"}
	contenders, err := c.contenders()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, of := range contenders {
		names = append(names, of.Name)
	}
	if got := strings.Join(names, ", "); got != "go work-queue, go work-queue external, go limits, go limits external" {
		t.Error(got)
	}
}

func TestUnknownValues(t *testing.T) {
	for want, change := range map[string]func(*Command){
		"--setup ruby is unknown":   func(c *Command) { c.Setup = []string{"ruby"} },
		"--stream memory is":        func(c *Command) { c.Stream = []string{"memory"} },
		"--server redis is unknown": func(c *Command) { c.Server = []string{"redis"} },
		"--work io is unknown":      func(c *Command) { c.Work = []string{"io"} },
		"no row is left": func(c *Command) {
			c.Work, c.Time, c.Load = []string{load.CPU}, []time.Duration{time.Second}, []int{1_000_000}
		},
		"--rounds must": func(c *Command) { c.Rounds = 0 },
	} {
		c := standard()
		change(&c)
		if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{-1: "–", 0: "0", 0.123: "0.12", 1.26: "1.3", 123.4: "123"} {
		if got := number(x); got != want {
			t.Errorf("%v: %q, want %q", x, got, want)
		}
	}
}
