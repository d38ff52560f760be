package tune

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
)

// cell returns a cell with p processes, n threads, and a throughput. Tests change further fields.
func cell(p, n int, throughput float64) Cell {
	return Cell{Settings: Settings{Processes: p, Threads: n}, Seconds: 2, Calls: 200, Throughput: throughput, P50: 0.02, P99: 0.05, CPU: 1, Memory: 100 << 20}
}

func with(c Cell, change func(*Cell)) Cell {
	change(&c)
	return c
}

func TestChoose(t *testing.T) {
	for name, test := range map[string]struct {
		cells          []Cell
		best, cheapest string
	}{
		"none":                       {nil, "", ""},
		"one":                        {[]Cell{cell(1, 1, 10)}, "1 process × 1 thread", "1 process × 1 thread"},
		"clear":                      {[]Cell{cell(1, 1, 10), cell(2, 1, 20), cell(4, 1, 15)}, "2 processes × 1 thread", "2 processes × 1 thread"},
		"fewer processes come close": {[]Cell{cell(4, 1, 100), cell(2, 1, 95.1), cell(1, 1, 94.9)}, "4 processes × 1 thread", "2 processes × 1 thread"},
		"then memory": {[]Cell{cell(2, 16, 100), with(cell(2, 4, 99), func(c *Cell) { c.Memory = 150 << 20 })},
			"2 processes × 16 threads", "2 processes × 16 threads"},
		"memory that is about the same": {[]Cell{cell(2, 16, 100), with(cell(2, 4, 99), func(c *Cell) { c.Memory = 105 << 20 })},
			"2 processes × 16 threads", "2 processes × 4 threads"},
		"then CPU": {[]Cell{cell(2, 16, 100), with(cell(2, 4, 99), func(c *Cell) { c.CPU = 1.5 })},
			"2 processes × 16 threads", "2 processes × 16 threads"},
		"then threads":      {[]Cell{cell(2, 64, 100), cell(2, 16, 99), cell(2, 4, 98)}, "2 processes × 64 threads", "2 processes × 4 threads"},
		"a problem":         {[]Cell{cell(1, 1, 10), with(cell(2, 1, 20), func(c *Cell) { c.Problem = "it did not start" })}, "1 process × 1 thread", "1 process × 1 thread"},
		"fast, but failing": {[]Cell{cell(1, 1, 10), with(cell(2, 1, 20), func(c *Cell) { c.Failed = 20 })}, "1 process × 1 thread", "1 process × 1 thread"},
		"all fail alike": {[]Cell{with(cell(1, 1, 10), func(c *Cell) { c.Failed = 20 }), with(cell(2, 1, 20), func(c *Cell) { c.Failed = 21 })},
			"2 processes × 1 thread", "2 processes × 1 thread"},
		"nothing was done": {[]Cell{cell(1, 1, 0)}, "", ""},
		"memory unknown": {[]Cell{with(cell(2, 4, 100), func(c *Cell) { c.Memory, c.CPU = 0, 0 }), with(cell(2, 1, 99), func(c *Cell) { c.Memory, c.CPU = 0, 0 })},
			"2 processes × 4 threads", "2 processes × 1 thread"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Report{Cells: test.cells}
			r.ChooseBest()
			text := func(c *Cell) string {
				if c == nil {
					return ""
				}
				return c.String()
			}
			if text(r.Best) != test.best || text(r.Cheapest) != test.cheapest {
				t.Errorf("best %q, cheapest %q; want %q and %q", text(r.Best), text(r.Cheapest), test.best, test.cheapest)
			}
		})
	}
}

// example returns a report that uses every feature.
func example(async bool) *Report {
	r := &Report{Function: "orders<b>", Handler: "python app", Messages: "1 message of m.jsonl", Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: 60, Cores: 2, Async: async,
		Skipped: []Skipped{{Settings{Processes: 8}, "no time for it"}}, Notes: []string{"a note"}, Stopped: true}
	for _, p := range []int{2, 1, 4} {
		for _, n := range []int{1, 16, 4} {
			c := cell(p, n, float64(10*min(p, 2)+n))
			c.P99 = 0.02 * float64(n)
			if async {
				c.Settings = Settings{Processes: p, Threads: 4, Coroutines: n}
				r.Cells = append(r.Cells, c)
				c.Threads = 16
			}
			r.Cells = append(r.Cells, c)
		}
	}
	r.Cells[1].Failed, r.Cells[2].Calls, r.Cells[4].Problem = 3, 2, "it did not start in time"
	auto := cell(2, 3, 34)
	r.Auto, r.AutoFor = &auto, 25
	r.ChooseBest()
	return r
}

func TestText(t *testing.T) {
	for _, async := range []bool{false, true} {
		var out bytes.Buffer
		if err := example(async).WriteText(&out, 0); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"stopped before all was measured", "█", "2 % failed", "few calls", "it did not start in time", "left out: 8 processes: no time for it", "note: a note",
			"Throughput, calls/s", "p99, latency", "CPU, cores", "Best: ", "Auto, in 25 s and without earlier measurements, chose 2 processes × 3 threads: 34.0 calls/s", "cheapest", "auto\n",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("async %v: it lacks %q:\n%s", async, want, out.String())
			}
		}
	}
}

// TestHTML checks that the page is well-formed and self-contained, escapes its texts, and has a
// description of each drawing.
func TestHTML(t *testing.T) {
	for _, async := range []bool{false, true} {
		var out bytes.Buffer
		r := example(async)
		if err := r.WriteHTML(&out); err != nil {
			t.Fatal(err)
		}
		page := out.String()
		for _, bad := range []string{"<script", "http:", "https:", "url(", "@import", "src=", "orders<b>", "ZgotmplZ", "NaN", "Inf", "%!"} {
			if strings.Contains(page, bad) {
				t.Errorf("async %v: the page has %q", async, bad)
			}
		}
		drawings := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
		if want := 6 * len(r.splitPanels()); len(drawings) != want {
			t.Errorf("async %v: %d drawings, want %d", async, len(drawings), want)
		}
		for _, d := range drawings {
			from := xml.NewDecoder(strings.NewReader(d))
			for {
				if _, err := from.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%v in %s", err, d)
				}
			}
			if !strings.Contains(d, `role="img" aria-label="`) || !strings.Contains(d, "<title>") {
				t.Errorf("it says nothing of itself: %.200s", d)
			}
		}
		for _, want := range []string{"orders&lt;b&gt;", "prefers-color-scheme: dark", `class="cheapest"`, "no time for it", "it did not start in time", `style="width:100.0%"`} {
			if !strings.Contains(page, want) {
				t.Errorf("async %v: the page lacks %q", async, want)
			}
		}
	}
	empty := &Report{}
	empty.ChooseBest()
	if err := empty.WriteHTML(io.Discard); err != nil {
		t.Error(err)
	}
	if err := empty.WriteText(io.Discard, 0); err != nil {
		t.Error(err)
	}
}

func TestAdvice(t *testing.T) {
	r := example(false)
	text := strings.Join(r.AdviceLines(), "\n")
	if !strings.Contains(text, "The best is at the edge of the grid: more threads may be better.") || strings.Contains(text, "more processes") {
		t.Error(text)
	}
	r.Auto, r.NoAuto = nil, "it was stopped before"
	r.Cells = r.Cells[:1]
	r.ChooseBest()
	if text := strings.Join(r.AdviceLines(), "\n"); !strings.Contains(text, "Auto was not compared: it was stopped before.") || !strings.Contains(text, "also the cheapest") || strings.Contains(text, "edge of the grid") {
		t.Error(text)
	}
	if text := strings.Join((&Report{}).AdviceLines(), "\n"); !strings.Contains(text, "increase --for") {
		t.Error(text)
	}
}

func TestReportAsJSON(t *testing.T) {
	text, err := json.Marshal(example(false))
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil || back.Best == nil || back.Best.Threads != 16 || len(back.Cells) != 9 || back.Cells[0].Processes != 2 {
		t.Errorf("%v %s", err, text)
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 12345.6: "12346"} {
		if got := FormatNumber(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "-", 0.0000123: "12 µs", 0.00123: "1.2 ms", 0.123: "123 ms", 1.5: "1.50 s"} {
		if got := FormatSeconds(v); got != want {
			t.Errorf("%v s is %s, want %s", v, got, want)
		}
	}
}
