package tune

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGrid(t *testing.T) {
	long := 10 * time.Minute
	for name, test := range map[string]struct {
		look   Baseline
		asked  Requested
		budget time.Duration
		want   string // processes×threads×coroutines, in order
		left   string
	}{
		"computes":        {Baseline{Threads: true, Cores: 2, Busy: 1}, Requested{}, long, "1×1×0 1×4×0 1×16×0 2×1×0 2×4×0 2×16×0 4×1×0 4×4×0 4×16×0", ""},
		"waits":           {Baseline{Threads: true, Cores: 2, Busy: 0.01}, Requested{Processes: []int{2}}, long, "2×1×0 2×4×0 2×16×0 2×64×0 2×256×0", ""},
		"async":           {Baseline{Async: true, Threads: true, Cores: 2, Busy: 0.1}, Requested{Processes: []int{1}}, long, "1×0×1 1×0×8 1×0×64 1×0×512", ""},
		"async, computes": {Baseline{Async: true, Threads: true, Cores: 2, Busy: 1}, Requested{Processes: []int{1}}, long, "1×0×1 1×0×8 1×0×64", ""},
		"one thread":      {Baseline{Cores: 2, Busy: 1}, Requested{}, long, "1×0×0 2×0×0 4×0×0", ""},
		"eight cores":     {Baseline{Cores: 8, Busy: 1}, Requested{}, long, "1×0×0 4×0×0 8×0×0 16×0×0", ""},
		"one core":        {Baseline{Cores: 1, Busy: 1}, Requested{}, long, "1×0×0 2×0×0 4×0×0", ""},
		"asked":           {Baseline{Threads: true, Cores: 2, Busy: 1}, Requested{Processes: []int{3}, Threads: []int{7, 5}, Coroutines: []int{9}}, long, "3×5×9 3×7×9", ""},
		"memory":          {Baseline{Cores: 2, Busy: 1, Memory: 400 << 20, Free: 1 << 30}, Requested{}, long, "1×0×0 2×0×0", "4×0×0: 400 MiB of memory each do not fit"},
		"little time":     {Baseline{Threads: true, Cores: 2, Busy: 1}, Requested{}, 4500 * time.Millisecond, "1×1×0 2×1×0 2×4×0 2×16×0", "no time"},
		"slow calls":      {Baseline{Threads: true, Cores: 2, Busy: 1, Call: 10 * time.Second}, Requested{}, 2 * time.Minute, "2×1×0 2×16×0", "no time"},
		"slow start":      {Baseline{Threads: true, Cores: 2, Busy: 1, StartUp: 20 * time.Second}, Requested{}, 30 * time.Second, "2×1×0 2×4×0 2×16×0", "no time"},
		"no time at all":  {Baseline{Threads: true, Cores: 2, Busy: 1, StartUp: 20 * time.Second}, Requested{}, 10 * time.Second, "", "no time"},
	} {
		t.Run(name, func(t *testing.T) {
			p := PlanGrid(test.look, test.asked, test.budget)
			if got := cellsText(p.Cells); got != test.want {
				t.Errorf("cells %s\nwant  %s", got, test.want)
			}
			var left []string
			for _, s := range p.Skipped {
				left = append(left, fmt.Sprintf("%d×%d×%d: %s", s.Processes, s.Threads, s.Coroutines, s.Why))
			}
			if got := strings.Join(left, "\n"); test.left == "" && got != "" || !strings.Contains(got, test.left) {
				t.Errorf("left out is %q, want %q", got, test.left)
			}
			if len(p.Cells) == 0 {
				return
			}
			if rounds := map[bool]int{true: 3, false: 1}[test.budget == long]; p.Rounds != rounds {
				t.Errorf("%d rounds, want %d", p.Rounds, rounds)
			}
			if p.Each < max(minCellTime, callsPerCell*test.look.Call) {
				t.Errorf("each has %v", p.Each)
			}
			if all := time.Duration(p.Rounds) * (time.Duration(len(p.Cells))*(p.Each+changeTime) + startUpTime(p.Cells, func(s Settings) int { return s.Processes }, test.look.StartUp)); all > test.budget {
				t.Errorf("all take %v", all)
			}
		})
	}
}

func cellsText(cells []Settings) string {
	var out []string
	for _, s := range cells {
		out = append(out, fmt.Sprintf("%d×%d×%d", s.Processes, s.Threads, s.Coroutines))
	}
	return strings.Join(out, " ")
}

func TestSpread(t *testing.T) {
	for n := range 9 {
		var row []int
		for i := range n {
			row = append(row, i)
		}
		got := endsFirst(slices.Clone(row))
		if slices.Sort(got); !reflect.DeepEqual(got, row) {
			t.Errorf("%v becomes %v", row, got)
		}
	}
}
