package tune

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func TestMargin(t *testing.T) {
	for name, c := range map[string]struct {
		rates []float64
		want  float64
		text  string
	}{
		"none":         {nil, 0, "-"},
		"too few":      {[]float64{10, 12}, 0, "-"},
		"all the same": {[]float64{10, 10, 10}, 0, "-"},
		"three":        {[]float64{9, 10, 11}, 4.30 / math.Sqrt(3), "±25 %"},
		"twelve":       {[]float64{9, 11, 9, 11, 9, 11, 9, 11, 9, 11, 9, 11}, 2.20 * math.Sqrt(12.0/11) / math.Sqrt(12), "±7 %"},
		"thirteen":     {[]float64{10, 9, 11, 9, 11, 9, 11, 9, 11, 9, 11, 9, 11}, 2.1 / math.Sqrt(13), "±6 %"},
	} {
		cell := Cell{Throughput: 10, Rates: c.rates}
		if got := cell.Margin(); math.Abs(got-c.want) > 1e-9 || cell.marginText() != c.text {
			t.Errorf("%s: %v, %s; want %v, %s", name, got, cell.marginText(), c.want, c.text)
		}
	}
}

func TestRoundsAreCombined(t *testing.T) {
	c := cell(2, 1, 100)
	c.Rates = []float64{90, 110}
	other := cell(2, 1, 40)
	other.Seconds, other.Calls, other.Failed, other.CPU, other.Memory, other.Rates = 1, 40, 3, 0.4, 500<<20, []float64{40}
	c.AddRound(other)
	if c.Seconds != 3 || c.Calls != 240 || c.Failed != 3 || c.Throughput != 80 || math.Abs(c.CPU-0.8) > 1e-9 || c.Memory != 100<<20 || len(c.Rates) != 3 || c.Problem != "" {
		t.Errorf("%+v", c)
	}
	c.AddRound(Cell{Problem: "no call ended"})
	if c.Problem != "no call ended" || c.Calls != 240 {
		t.Errorf("%+v", c)
	}
}

func TestCellsThatAreAsGood(t *testing.T) {
	r := &Report{Cells: []Cell{cell(1, 1, 100), cell(2, 1, 98), cell(4, 1, 60), cell(8, 1, 99)}, Cores: 2}
	for i := range r.Cells[:3] {
		c := &r.Cells[i]
		c.Rates = []float64{c.Throughput - 1, c.Throughput, c.Throughput + 1}
	}
	r.ChooseBest()
	if n := r.countAsGood(); n != 1 {
		t.Errorf("%d are as good", n)
	}
	if text := strings.Join(r.AdviceLines(), "\n"); !strings.Contains(text, "1 other cell may be as good as the best") || strings.Contains(text, "no basis") {
		t.Error(text)
	}
	var out bytes.Buffer
	if err := r.WriteText(&out, 0); err != nil || !strings.Contains(out.String(), "95 %") || !strings.Contains(out.String(), "±3 %") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestBusyMachine(t *testing.T) {
	r := &Report{Cells: []Cell{cell(1, 1, 100)}, Cores: 4, Others: 0.8}
	r.ChooseBest()
	if why := r.WhyNotKept(); why != "" {
		t.Errorf("a fifth is refused: %s", why)
	}
	r.Others = 1.3
	if text := strings.Join(r.AdviceLines(), "\n"); !strings.Contains(text, "These numbers are no basis for a decision: other programs used 1.3 of 4 cores during the run, more than a fifth. Measure again when the machine is quiet.") {
		t.Error(text)
	}
}

// Rounds alternate their order, and there are as many as the time allows.
func TestRounds(t *testing.T) {
	p := Plan{Cells: []Settings{{Processes: 1}, {Processes: 2}}, Rounds: 3}
	if got := cellsText(p.Runs()); got != "1×0×0 2×0×0 2×0×0 1×0×0 1×0×0 2×0×0" {
		t.Error(got)
	}
	if runs := (Plan{}).Runs(); len(runs) > 0 {
		t.Error(runs)
	}
}
