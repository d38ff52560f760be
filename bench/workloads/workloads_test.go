package workloads

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// steady is a track of a function that handles this many messages a second in each of the
// stretches of ten seconds.
func steady(rates ...float64) *track {
	t, done := &track{Points: []point{{Done: []int64{0}}}}, 0.0
	for i, rate := range rates {
		for j := range 20 {
			done += rate / 2
			t.Points = append(t.Points, point{At: float64(10*i) + float64(j+1)/2, Done: []int64{int64(done)}})
		}
	}
	return t
}

func TestRateIsTheGeometricMean(t *testing.T) {
	run := &track{Points: []point{{At: 0, Done: []int64{0, 0}}, {At: 2, Done: []int64{20, 80}}, {At: 4, Done: []int64{40, 80}}}}
	if got := run.rate(0, 2); got != 20 {
		t.Errorf("got %v, want the root of 10 × 40", got)
	}
	if got := run.rate(2, 4); got != 0 {
		t.Errorf("got %v where one starves", got)
	}
	if got := run.rate(4, 4); got != 0 {
		t.Errorf("got %v in no time", got)
	}
}

func TestJudge(t *testing.T) {
	r := &report{Auto: steady(10, 80, 98, 98, 98), Stages: []stage{{Mode: "-", Best: cell{Rate: 100}}}, Azure: &cell{Rate: 49}}
	r.judge()
	l := r.Stages[0]
	if l.Reached < 19 || l.Reached > 20 || l.Ratio != 0.98 || r.VsAzure != 2 {
		t.Errorf("got %+v, Azure %v", l, r.VsAzure)
	}
	r = &report{Auto: steady(10, 20), Stages: []stage{{Mode: "-", Best: cell{Rate: 100}}}}
	if r.judge(); r.Stages[0].Reached >= 0 {
		t.Errorf("0.9 is never reached: got %+v", r.Stages[0])
	}
	// The kind flips: the measurements afterwards include none from before.
	r = &report{Auto: steady(100, 100, 5, 50, 50), Stages: []stage{{Mode: "c", Best: cell{Rate: 100}}, {Mode: "w", Best: cell{Rate: 50}}}}
	r.Auto.Flips = []float64{20}
	r.judge()
	if a, b := r.Stages[0], r.Stages[1]; a.Reached != 0 || a.Ratio != 1 || b.Reached < 9 || b.Reached > 10.5 || b.Ratio != 1 {
		t.Errorf("got %+v and %+v", a, b)
	}
}

func TestGrid(t *testing.T) {
	g, err := parseGrid("1,2x8x1,512")
	if err != nil || len(g.cells()) != 4 || g.cells()[3] != (settings{2, 8, 512}) || g.String() != "1,2x8x1,512" {
		t.Errorf("got %v, %v", g, err)
	}
	if g, err := parseGrid("3"); err != nil || g.cells()[0] != (settings{3, 1, 1}) {
		t.Errorf("got %v, %v", g, err)
	}
	for _, bad := range []string{"", "1x0", "1xa", "1x1x1x1", "1,,2"} {
		if g, err := parseGrid(bad); err == nil || !strings.Contains(err.Error(), "--grid "+bad) {
			t.Errorf("%q: got %v, %v", bad, g, err)
		}
	}
}

func TestFunctionsOfWorkloadsAreInTheApp(t *testing.T) {
	for _, w := range workloads(2) {
		for _, name := range w.Functions {
			if !strings.Contains(string(workloadsApp), "def "+name+"(") {
				t.Errorf("%s: the app has no %s", w.Name, name)
			}
		}
	}
}

func TestPlotIsAnSVG(t *testing.T) {
	r := &report{workload: workload{Name: "flip", What: "one <kind> & another", Functions: []string{"flips"}},
		Auto: steady(20, 70, 95, 60, 200, 390), Stages: []stage{
			{Mode: "c", Best: cell{Settings: settings{2, 1, 1}, Rate: 100}},
			{Mode: "w", Best: cell{Settings: settings{2, 512, 1}, Rate: 400}},
		}}
	r.Auto.Flips = []float64{30}
	for i := range r.Auto.Points {
		r.Auto.Points[i].seen = made(1+i/9, 1<<(i/12))
	}
	r.judge()
	plot := r.plot()
	if path := os.Getenv("PLOT"); path != "" { // to be looked at
		if err := os.WriteFile(path, []byte(plot), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	curves := 0
	for d := xml.NewDecoder(strings.NewReader(plot)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			curves++
		}
	}
	if curves != 1+len(r.lanes()) {
		t.Errorf("%d curves, want the throughput and %d settings", curves, len(r.lanes()))
	}
	if !strings.Contains(plot, "one &lt;kind&gt; &amp; another") || !strings.Contains(plot, "best 2×512×1") {
		t.Error("the texts are not there")
	}
}

func made(processes, threads int) seen { return seen{Processes: processes, Threads: threads} }
