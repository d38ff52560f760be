package workloads

import (
	"fmt"
	"strconv"
	"strings"
)

// settings are explicit numbers.
type settings struct {
	Processes  int `json:"processes"`
	Threads    int `json:"threads"`
	Coroutines int `json:"coroutines"`
}

func (s settings) String() string {
	return fmt.Sprintf("%d×%d×%d", s.Processes, s.Threads, s.Coroutines)
}

// cell is settings, and what they brought.
type cell struct {
	Settings settings  `json:"settings"`
	Rate     float64   `json:"rate"` // of two functions the geometric mean
	Runs     []float64 `json:"runs"`
}

// grid is every combination of numbers.
type grid struct{ processes, threads, coroutines []int }

func (g grid) String() string {
	var parts []string
	for _, numbers := range [][]int{g.processes, g.threads, g.coroutines} {
		parts = append(parts, strings.ReplaceAll(strings.Trim(fmt.Sprint(numbers), "[]"), " ", ","))
	}
	return strings.Join(parts, "x")
}

func (g grid) cells() (all []settings) {
	for _, p := range g.processes {
		for _, t := range g.threads {
			for _, c := range g.coroutines {
				all = append(all, settings{p, t, c})
			}
		}
	}
	return all
}

// parseGrid reads "1,2x1,8,64x512"; a missing list is 1.
func parseGrid(text string) (g grid, err error) {
	lists := []*[]int{&g.processes, &g.threads, &g.coroutines}
	parts := strings.Split(text, "x")
	if len(parts) > len(lists) {
		return g, fmt.Errorf("--grid %s: there are processes, threads and coroutines, and no more", text)
	}
	for i, list := range lists {
		*list = []int{1}
		if i >= len(parts) {
			continue
		}
		*list = nil
		for number := range strings.SplitSeq(parts[i], ",") {
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 {
				return g, fmt.Errorf("--grid %s: %q is not a number of 1 or more", text, number)
			}
			*list = append(*list, n)
		}
	}
	return g, nil
}
