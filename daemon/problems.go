package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs"
)

// FunctionProblem is something that somebody has to fix, while the function may still run.
type FunctionProblem struct {
	Kind  string    `json:"kind" desc:"unsettled: the source refuses verdicts; output: results cannot be sent; dead_letters: rejected messages cannot be moved; attempts: failures cannot be counted; rights: the account lacks a right; store: the embedded server's store is disabled"`
	Text  string    `json:"text" desc:"what is wrong, and what to do"`
	Since time.Time `json:"since"`
	// Messages are those that wait here because of it, and Message is the one that
	// has waited longest.
	Messages int64  `json:"messages,omitempty" desc:"messages that wait here because of it"`
	Message  string `json:"message,omitempty" desc:"the one that has waited longest"`
	Blocks   bool   `json:"blocks,omitempty" desc:"whether nothing is received because of it"`
}

// The kinds of problems, beside those of triggers.Trouble.
const (
	problemUnsettled = "unsettled"
	problemOutput    = "output"
	problemStore     = "store"
)

// problemKinds are those of functions: the labels of a metric.
var problemKinds = []string{problemUnsettled, problemOutput, triggers.TroubleDeadLetters, triggers.TroubleAttempts, triggers.TroubleRights}

// functionProblems returns the problems of a function, the oldest first.
func functionProblems(f *apps.Function) []FunctionProblem {
	out := troublesOf(f.Trigger)
	for _, b := range f.Blockages() {
		kind := problemUnsettled
		if b.Output != "" {
			kind = problemOutput
		}
		out = append(out, FunctionProblem{Kind: kind, Text: b.Text, Since: b.Since, Messages: b.Messages, Message: b.Message, Blocks: b.Full})
	}
	slices.SortStableFunc(out, olderProblem)
	return out
}

func olderProblem(a, b FunctionProblem) int {
	return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Kind, b.Kind))
}

// troublesOf are those that a source reports.
func troublesOf(source triggers.Trigger) (out []FunctionProblem) {
	if troubled, ok := source.(triggers.Troubled); ok {
		for _, t := range troubled.Troubles() {
			out = append(out, FunctionProblem{Kind: t.Kind, Text: t.Text, Since: t.Since})
		}
	}
	return out
}

// stores are the embedded servers of this daemon, by connection. The zero value has
// none. It is safe for use by many goroutines.
type stores struct {
	mu  sync.Mutex
	all map[string]*natsjs.Embedded
}

func (s *stores) add(connection string, e *natsjs.Embedded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[string]*natsjs.Embedded)
	}
	s.all[connection] = e
}

func (s *stores) remove(connection string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, connection)
}

// names are the connections with an embedded server.
func (s *stores) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.all))
}

// problem is that of a connection's store; nil if it is well, or there is none.
func (s *stores) problem(connection string) *FunctionProblem {
	s.mu.Lock()
	e := s.all[connection]
	s.mu.Unlock()
	if e == nil {
		return nil
	}
	since, why := e.Failure()
	if why == nil {
		return nil
	}
	return &FunctionProblem{Kind: problemStore, Text: fmt.Sprintf("connection %s: %v", connection, why), Since: since, Blocks: true}
}

// problems are those of all stores.
func (s *stores) problems() (out []FunctionProblem) {
	for _, name := range s.names() {
		if p := s.problem(name); p != nil {
			out = append(out, *p)
		}
	}
	return out
}

// mergeProblems are those of two instances of one function: of each kind and text
// the older one, with the messages of both.
func mergeProblems(a, b []FunctionProblem) []FunctionProblem {
	out := slices.Clone(a)
	for _, p := range b {
		i := slices.IndexFunc(out, func(o FunctionProblem) bool {
			return o.Kind == p.Kind && (o.Kind == problemUnsettled || o.Text == p.Text)
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
	slices.SortStableFunc(out, olderProblem)
	return out
}

// Words says it in a line, for people.
func (p FunctionProblem) Words() string {
	text := fmt.Sprintf("%s (for %v)", p.Text, time.Since(p.Since).Round(time.Second))
	if p.Messages > 0 {
		text = fmt.Sprintf("%s, the first of them %s: %s", count(p.Messages, "message waits", "messages wait"), p.Message, text)
	}
	if p.Blocks {
		text = "nothing is received: " + text
	}
	return text
}

// blocking is the problem because of which nothing is received; nil if there is none.
func blocking(problems []FunctionProblem) *FunctionProblem {
	for i := range problems {
		if problems[i].Blocks {
			return &problems[i]
		}
	}
	return nil
}

// problemNotes are those because of which the function does not stand still.
func problemNotes(problems []FunctionProblem) (notes []string) {
	for _, p := range problems {
		if !p.Blocks {
			notes = append(notes, p.Words())
		}
	}
	return notes
}
