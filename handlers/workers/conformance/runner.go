package conformance

import (
	"context"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
)

// runner runs the checks of a plan, each in a process of its own, or, where they leave
// nothing behind, many in one: a start costs more than most checks.
type runner struct {
	ctx     context.Context
	reaper  *childproc.Reaper
	target  Target
	limit   time.Duration
	todo    []planned
	results []chan Result
}

// processes are the checks to run in each process, the longest first.
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

// run runs checks in one process. Where one of several fails it is not sure which of
// them the worker stumbled over: then each has a process of its own.
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
			result = results[at] // it takes what was before
			result.Why += " (in one process with the checks before it)"
		}
		r.results[i] <- result
	}
}

// jointly runs checks in one process, up to the first that fails, whose place it
// returns, or -1.
func (r *runner) jointly(some []int) (results []Result, failed int) {
	s := &session{reaper: r.reaper, target: r.target, limit: r.limit, joint: true}
	defer s.end()
	for at, i := range some {
		results = append(results, r.one(s, r.todo[i]))
		if at == len(some)-1 && results[at].Verdict != Failed {
			s.joint = false
			if last := r.one(s, planned{check: check{rule: ruleEnds, run: (*session).finish}, mode: r.todo[i].mode, name: r.todo[i].name}); last.Verdict == Failed {
				results[at] = last
			}
		}
		if results[at].Verdict == Failed {
			return results, at
		}
	}
	return results, -1
}

// alone runs one check in a process of its own.
func (r *runner) alone(p planned) Result {
	s := &session{reaper: r.reaper, target: r.target, limit: r.limit}
	defer s.end()
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
		case verdict:
			out.Verdict, out.Why, out.Wanted, out.Rule = v.verdict, v.why, v.wanted, v.rule
		default:
			panic(v)
		}
		if s.unbind != nil {
			s.unbind()
		}
		if out.Verdict == Failed {
			s.kill() // its last words are whole then
			out.Sent, out.Came, out.Stderr = s.said()
		}
		out.Seconds = time.Since(began).Seconds()
	}()
	p.run(s)
	return out
}
