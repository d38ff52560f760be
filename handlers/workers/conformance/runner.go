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

// processes returns the checks to run in each process, the longest first.
func (r *runner) processes() (out [][]int) {
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

// run runs checks in one process. If one of several fails, an earlier check may be the cause. Then
// each check is run in a process of its own.
func (r *runner) run(some []int) {
	if len(some) == 1 {
		r.results[some[0]] <- r.alone(r.todo[some[0]])
		return
	}
	results, failed := r.jointly(some)
	for at, i := range some {
		if failed < 0 {
			r.results[i] <- results[at]
			continue
		}
		result := r.alone(r.todo[i])
		if at == failed && result.Verdict == Passed {
			result = results[at] // the failure depends on the earlier checks
			result.Why += " (in one process with the checks before it)"
		}
		r.results[i] <- result
	}
}

// jointly runs checks in one process, up to the first that fails. failed is its index, or -1.
func (r *runner) jointly(some []int) (results []Result, failed int) {
	s := r.session()
	s.joint = true
	defer s.Close()
	for at, i := range some {
		results = append(results, r.one(s, r.todo[i]))
		if at == len(some)-1 && results[at].Verdict != Failed {
			s.joint = false
			if last := r.one(s, planned{check: check{rule: driver.RuleEnds, run: (*session).finish}, mode: r.todo[i].mode, name: r.todo[i].name}); last.Verdict == Failed {
				results[at] = last
			}
		}
		if results[at].Verdict == Failed {
			return results, at
		}
	}
	return results, -1
}

// session returns a session without a process.
func (r *runner) session() *session {
	return &session{Worker: driver.New(r.reaper, r.limit), target: r.target}
}

// alone runs one check in a process of its own.
func (r *runner) alone(p planned) Result {
	s := r.session()
	defer s.Close()
	return r.one(s, p)
}

// one runs a check in the process of a session, or a new one.
func (r *runner) one(s *session, p planned) (out Result) {
	ctx, cancel := context.WithTimeout(r.ctx, r.limit)
	defer cancel()
	began := time.Now()
	s.begin(ctx, p)
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
		s.Finish()
		if out.Verdict == Failed {
			s.Kill() // after that, its standard error is complete
			out.Sent, out.Came, out.Stderr = s.Transcript()
		}
		out.Seconds = time.Since(began).Seconds()
	}()
	p.run(s)
	return out
}
