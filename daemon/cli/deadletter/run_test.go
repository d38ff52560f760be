package deadletter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers"
)

// fewDead is a source of dead letters that cannot be replayed.
type fewDead struct {
	triggers.DeadLetters
	n int
}

func (d *fewDead) Browse(_ context.Context, max int) (out []triggers.DeadLetter, err error) {
	for ; d.n > 0 && len(out) < max; d.n-- {
		out = append(out, triggers.DeadLetter{ID: fmt.Sprint(d.n)})
	}
	return out, nil
}

func TestRunsThatFail(t *testing.T) {
	for name, test := range map[string]struct {
		fails func(id string) error
		out   string
		errs  []string
	}{
		"none":       {func(string) error { return nil }, "matched 100, replayed 100, left 0\n", nil},
		"one":        {failsFor("7", errors.New("too large\x1b[2J")), "matched 100, replayed 99, left 1\n", []string{"dead letter 7: too large?[2J", "1 could not be replayed, and were kept"}},
		"in doubt":   {failsFor("7", fmt.Errorf("7: %w", triggers.ErrDoubtful)), "matched 100, replayed 99, left 1 (1 in doubt)\n", []string{"may have sent", "with --doubtful"}},
		"all":        {func(string) error { return errors.New("it is away") }, ", replayed 0, left ", []string{"stopped after 10 failures in a row", "it is away"}},
		"are shared": {func(string) error { return fmt.Errorf("topic t: %w", triggers.ErrShared) }, ", and any that were not examined\n", []string{"topic t: others receive", "--shared to replay anyway"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs strings.Builder
			pace, err := parseRate("")
			if err != nil {
				t.Fatal(err)
			}
			job := &Job{Selection: &Selection{isMatch: func(*triggers.DeadLetter) bool { return true }, limiter: pace}, Out: &out, Err: &errs, ErrIsTerminal: name == "none"}
			r := &run{job: job, verb: "replay", done: "replayed", process: func(_ context.Context, d triggers.DeadLetter) error { return test.fails(d.ID) }}
			err = r.processAll(t.Context(), &fewDead{n: 100})
			if err != nil {
				_, _ = fmt.Fprintln(&errs, err)
			}
			if !strings.Contains(out.String(), test.out) || (err != nil) != (test.errs != nil) {
				t.Errorf("%q, %v", out.String(), err)
			}
			for _, want := range test.errs {
				if !strings.Contains(errs.String(), want) {
					t.Errorf("%q lacks %q", errs.String(), want)
				}
			}
		})
	}
}

func failsFor(id string, err error) func(string) error {
	return func(got string) error {
		if got == id {
			return err
		}
		return nil
	}
}

// A letter that cannot be replayed blocks the later ones of its session, and no others.
func TestALetterThatIsLeft(t *testing.T) {
	bus := func(letter *triggers.DeadLetter) string { return letter.Message.OrderingKey }
	r := &run{orderKey: bus, showProgress: func() {}, failures: io.Discard, job: new(Job)}
	letter := func(key string) triggers.DeadLetter {
		return triggers.DeadLetter{Message: triggers.Message{OrderingKey: key}}
	}
	a, b := letter("a"), letter("b")
	r.countResult(a, errors.New("no"))
	if !r.mustSkip(&a) || r.mustSkip(&b) || r.skippedBehind != 1 {
		t.Errorf("%+v", r)
	}
}
