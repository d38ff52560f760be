package coreshare

import (
	"slices"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		cores     float64
		processes int
		most      float64
		want      int
	}{
		{8, 1, 0, 8}, {8, 2, 0, 4}, {8, 3, 0, 2}, {8, 16, 0, 1},
		{1.98, 1, 0, 2}, {1.5, 1, 0, 1}, {0.5, 1, 0, 1}, // quotas
		{8, 2, 2.5, 2}, {8, 2, 0.5, 1}, {8, 8, 4, 1}, // limits of each process
		{8, 0, 0, 8}, {0, 1, 0, 1}, // unknown
	} {
		if got := Of(test.cores, test.processes, test.most); got != test.want {
			t.Errorf("%v cores, %d processes of at most %v: %d, want %d", test.cores, test.processes, test.most, got, test.want)
		}
	}
}

func TestEnviron(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		given []string
		share int
		want  []string // added
	}{
		{"no limit", []string{"PATH=/bin"}, 0, nil},
		{"two", []string{"PATH=/bin"}, 2, []string{
			"OMP_NUM_THREADS=2", "OPENBLAS_NUM_THREADS=2", "MKL_NUM_THREADS=2", "NUMEXPR_NUM_THREADS=2",
			"VECLIB_MAXIMUM_THREADS=2", "POLARS_MAX_THREADS=2", "RAYON_NUM_THREADS=2", "GOMAXPROCS=2",
		}},
		{"the user's OpenMP applies to those that read it, too", []string{"OMP_NUM_THREADS=8"}, 1, []string{
			"VECLIB_MAXIMUM_THREADS=1", "POLARS_MAX_THREADS=1", "RAYON_NUM_THREADS=1", "GOMAXPROCS=1",
		}},
		{"the user's, one of them empty", []string{"OPENBLAS_NUM_THREADS=", "POLARS_MAX_THREADS=3"}, 1, []string{
			"OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1", "NUMEXPR_NUM_THREADS=1", "VECLIB_MAXIMUM_THREADS=1", "RAYON_NUM_THREADS=1", "GOMAXPROCS=1",
		}},
		{"an older name", []string{"GOTO_NUM_THREADS=2", "NUMEXPR_MAX_THREADS=4"}, 4, []string{
			"OMP_NUM_THREADS=4", "MKL_NUM_THREADS=4", "NUMEXPR_NUM_THREADS=4", "VECLIB_MAXIMUM_THREADS=4", "POLARS_MAX_THREADS=4", "RAYON_NUM_THREADS=4", "GOMAXPROCS=4",
		}},
		{"the user's maximum of NumExpr, and a larger pool of Node.js", []string{"OMP_NUM_THREADS=", "NUMEXPR_MAX_THREADS=4"}, 16, []string{
			"VECLIB_MAXIMUM_THREADS=16", "POLARS_MAX_THREADS=16", "RAYON_NUM_THREADS=16", "GOMAXPROCS=16", "UV_THREADPOOL_SIZE=16",
		}},
		{"the pool of Node.js is the user's", []string{"UV_THREADPOOL_SIZE=6", "GOMAXPROCS=1", "MKL_NUM_THREADS=1", "NUMEXPR_MAX_THREADS=5"}, 8, []string{
			"OMP_NUM_THREADS=8", "OPENBLAS_NUM_THREADS=8", "NUMEXPR_NUM_THREADS=5", "VECLIB_MAXIMUM_THREADS=8", "POLARS_MAX_THREADS=8", "RAYON_NUM_THREADS=8",
		}},
	} {
		before := strings.Join(test.given, " ")
		got := Environ(test.given, test.share)
		if want := slices.Concat(test.given, test.want); !slices.Equal(got, want) {
			t.Errorf("%s: %q\nwant %q", test.name, got, want)
		}
		if strings.Join(test.given, " ") != before {
			t.Errorf("%s: the given environment has changed", test.name)
		}
	}
	if got := Environ(nil, 96); !slices.Contains(got, "NUMEXPR_MAX_THREADS=96") || !slices.Contains(got, "NUMEXPR_NUM_THREADS=96") {
		t.Errorf("96 threads: %q; want NumExpr's maximum raised", got)
	}
}
