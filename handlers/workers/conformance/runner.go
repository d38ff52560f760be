package conformance

import (
	"context"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/conformance/driver"
)

// runner runs the checks of a plan. Checks without side effects share processes, because a start takes
// longer than most checks; others have a process each.
type runner struct {
	ctx     context.Context
	reaper  *childproc.Reaper
	target  Target
	limit   time.Duration
	todo    []planned
	results []chan Result
}

// groupChecks returns the checks to run in each process, the longest first.
func (r *runner) groupChecks() (out [][]int) {
	byMode := make(map[string][]int)
	for i, p := range r.todo {
		if p.joint {
			byMode[p.mode.name] = append(byMode[p.mode.name], i)
		}
	}
	for _, m := range all {
		if some := byMode[m.name]; len(some) > 0 {
			out = append(out, some)
		}
	}
	for i, p := range r.todo {
		if !p.joint {
			out = append(out, []int{i})
		}
	}
	return out
}

// runGroup runs checks in one process. If one of several fails, an earlier check may be the cause.
// Then each check is run in its own process.
func (r *runner) runGroup(some []int) {
	if len(some) == 1 {
		r.results[some[0]] <- r.runAlone(r.todo[some[0]])
		return
	}
	results, failed := r.runJointly(some)
	for at, i := range some {
		if failed < 0 {
			r.results[i] <- results[at]
			continue
		}
		result := r.runAlone(r.todo[i])
		if at == failed && result.Verdict == Passed {
			result = results[at] // the failure depends on the earlier checks
			result.Why += " (in one process with the checks before it)"
		}
		r.results[i] <- result
	}
}

// runJointly runs checks in one process, up to the first that fails. failed is its index, or -1.
func (r *runner) runJointly(some []int) (results []Result, failed int) {
	s := r.newSession()
	s.joint = true
	defer s.Close()
	for at, i := range some {
		results = append(results, r.runCheck(s, r.todo[i]))
		if at == len(some)-1 && results[at].Verdict != Failed {
			s.joint = false
			if last := r.runCheck(s, planned{check: check{rule: driver.RuleEnds, run: (*session).finishCheck}, mode: r.todo[i].mode, name: r.todo[i].name}); last.Verdict == Failed {
				results[at] = last
			}
		}
		if results[at].Verdict == Failed {
			return results, at
		}
	}
	return results, -1
}

// newSession returns a session without a process.
func (r *runner) newSession() *session {
	return &session{Worker: driver.New(r.reaper, r.limit), target: r.target}
}

// runAlone runs one check in its own process.
func (r *runner) runAlone(p planned) Result {
	s := r.newSession()
	defer s.Close()
	return r.runCheck(s, p)
}

// runCheck runs a check in the process of a session, or a new one.
func (r *runner) runCheck(s *session, p planned) (out Result) {
	ctx, cancel := context.WithTimeout(r.ctx, r.limit)
	defer cancel()
	began := time.Now()
	s.beginCheck(ctx, p)
	out = Result{Name: p.name, Verdict: Passed}
	defer func() {
		switch v := recover().(type) {
		case nil:
		case skip:
			out.Verdict, out.Why = Skipped, string(v)
		case driver.Violation:
			out.Verdict, out.Why, out.Wanted, out.Rule = Failed, v.Why, v.Wanted, v.Rule
		default:
			panic(v)
		}
		s.EndCheck()
		if out.Verdict == Failed {
			s.Kill() // after that, its standard error is complete
			out.Sent, out.Came, out.Stderr = s.Transcript()
		}
		out.Seconds = time.Since(began).Seconds()
	}()
	p.run(s)
	return out
}
