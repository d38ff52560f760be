package api

import (
	"cmp"
	"slices"
)

// CompareProblems orders problems by their age, for slices.SortFunc.
func CompareProblems(a, b FunctionProblem) int {
	return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Kind, b.Kind))
}

// MergeProblems returns the problems of two instances of a function, the oldest first. A
// problem that both have is returned once: the older one, with the messages of both.
func MergeProblems(a, b []FunctionProblem) []FunctionProblem {
	out := slices.Clone(a)
	for _, p := range b {
		i := slices.IndexFunc(out, func(o FunctionProblem) bool {
			return o.Kind == p.Kind && (o.Kind == ProblemUnsettled || o.Text == p.Text)
		})
		if i < 0 {
			out = append(out, p)
			continue
		}
		sum := out[i]
		if p.Since.Before(sum.Since) {
			sum = p
		}
		sum.Messages, sum.Blocks = out[i].Messages+p.Messages, out[i].Blocks || p.Blocks
		out[i] = sum
	}
	slices.SortStableFunc(out, CompareProblems)
	return out
}
