// Package coreshare divides the cores among the processes of an app, for libraries that compute with threads of
// their own, such as OpenBLAS. Without a limit, the libraries of each process start as many threads as there are
// cores, and the processes slow each other down: on two cores, two processes did a fifteenth of the matrix products
// that one did.
//
// Libraries read their variables when they are loaded. So a process keeps the share that it started with.
package coreshare

import (
	"slices"
	"strconv"
	"strings"
)

const (
	// uvDefault is the size of Node.js's thread pool without its variable. These threads also wait, for files and
	// names, so they are never fewer.
	uvDefault = 4
	// uvMost is the largest size that libuv accepts.
	uvMost = 1024
	// numExprMost is the largest number of threads of NumExpr without NUMEXPR_MAX_THREADS.
	numExprMost = 64
)

// variables set the number of threads. A library that reads several variables prefers the one here to those that
// it follows, so this one must not override what the user set there.
var variables = []struct {
	name    string
	follows []string
}{
	{name: "OMP_NUM_THREADS"}, // OpenMP, and PyTorch
	{"OPENBLAS_NUM_THREADS", []string{"GOTO_NUM_THREADS", "OMP_NUM_THREADS"}},
	{"MKL_NUM_THREADS", []string{"OMP_NUM_THREADS"}},
	{"NUMEXPR_NUM_THREADS", []string{"OMP_NUM_THREADS"}},
	{name: "VECLIB_MAXIMUM_THREADS"}, // Accelerate, on macOS
	{name: "POLARS_MAX_THREADS"},
	{name: "RAYON_NUM_THREADS"}, // other libraries in Rust
	{name: "GOMAXPROCS"},        // programs in Go
}

// Of returns how many cores each of some processes may use, at least 1. most is a limit of each process, in cores;
// 0: it has none.
func Of(cores float64, processes int, most float64) int {
	share := cores / float64(max(processes, 1))
	if most > 0 {
		share = min(share, most)
	}
	return max(int(share+0.05), 1) // a quota of 1.98 cores is two
}

// Environ returns an environment in which libraries use at most share threads each; 0: the environment is
// unchanged. Variables that it already has are kept, even empty ones.
func Environ(environ []string, share int) []string {
	if share <= 0 {
		return environ
	}
	given := make(map[string]string)
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		given[name] = value
	}
	isGiven := func(name string) bool { _, is := given[name]; return is }
	out := slices.Clone(environ)
	add := func(name string, n int) {
		if !isGiven(name) {
			out = append(out, name+"="+strconv.Itoa(n))
		}
	}
	for _, v := range variables {
		if slices.ContainsFunc(v.follows, isGiven) {
			continue
		}
		n := share
		if v.name == "NUMEXPR_NUM_THREADS" { // it accepts no more than its maximum
			if most, err := strconv.Atoi(given["NUMEXPR_MAX_THREADS"]); err == nil && most > 0 {
				n = min(n, most)
			} else if n > numExprMost {
				add("NUMEXPR_MAX_THREADS", n)
			}
		}
		add(v.name, n)
	}
	if share > uvDefault {
		add("UV_THREADPOOL_SIZE", min(share, uvMost))
	}
	return out
}
