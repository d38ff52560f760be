package sim

// Comparison has the results of all policies for one trace.
type Comparison struct {
	Trace Trace
	// Bound is the clairvoyant's result; Results are the policies' results, in order.
	Bound   Result
	Results []Result
}

// Compare runs a trace against policies.
func Compare(t Trace, policies []Policy, seed uint64) Comparison {
	c := Comparison{Trace: t, Bound: Clairvoyant(t, t.Model)}
	for _, p := range policies {
		c.Results = append(c.Results, Run(t, t.Model, p, seed))
	}
	return c
}

// CostRatio returns a result's instance-seconds as a multiple of the clairvoyant's.
func (c Comparison) CostRatio(r Result) float64 { return r.InstanceSeconds / c.Bound.InstanceSeconds }

// AvoidableLate returns how many messages were late beyond those of the clairvoyant.
func (c Comparison) AvoidableLate(r Result) int64 { return max(r.Late-c.Bound.Late, 0) }

// Peers returns the models of other autoscalers.
func Peers() []Policy { return []Policy{KEDA(), Azure(), Knative()} }
