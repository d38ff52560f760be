package python

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// memorySession is a session without a source.
type memorySession struct {
	state []byte
	lost  error
}

func (s *memorySession) State(context.Context) ([]byte, error) { return s.state, s.lost }

func (s *memorySession) SetState(_ context.Context, state []byte) error {
	s.state = state
	return s.lost
}

const stateful = `
def count(message, context):
    before = context.session_state
    context.session_state = (before or b"") + message.body
    return "was %s" % before
async def acount(message, context): return count(message, context)
def fails(message, context):
    context.session_state = b"never kept"
    raise ValueError("no luck")
def clear(message, context): context.session_state = None
def body_only(body): return body
def wrong(message, context): context.session_state = "text"
`

func TestSessionState(t *testing.T) {
	t.Parallel()
	for _, form := range []struct {
		name    string
		threads int
		count   string
	}{{"inline", 1, "count"}, {"threads", 3, "count"}, {"async", 1, "acount"}} {
		t.Run(form.name, func(t *testing.T) {
			names := []string{"count", "fails", "clear", "body_only", "wrong"}
			if form.count != "count" {
				names = append(names, form.count)
			}
			p := startApp(t, stateful, func(c *workers.Config) {
				c.Settings.Threads = form.threads
				for i := range c.Functions {
					c.Functions[i].SessionState = true
				}
			}, names...)
			s := new(memorySession)
			run := func(function, body string) (string, error) {
				out, err := handle(t.Context(), handler(t, p, function), &triggers.Message{Body: []byte(body), OrderingKey: "k", Attributes: map[string]string{"a": "b"}, Session: s})
				return string(out), err
			}
			for _, step := range []struct{ body, out, state string }{{"one", "was None", "one"}, {"\x00two", "was b'one'", "one\x00two"}} {
				if out, err := run(form.count, step.body); err != nil || out != step.out || string(s.state) != step.state {
					t.Errorf("%q, %v; the state is %q", out, err, s.state)
				}
			}
			if _, err := run("fails", "x"); err == nil || string(s.state) != "one\x00two" {
				t.Errorf("%v; the state is %q: a failure keeps nothing", err, s.state)
			}
			if out, err := run("body_only", "x"); err != nil || out != "x" {
				t.Errorf("%q, %v", out, err)
			}
			if _, err := run("wrong", "x"); err == nil || !strings.Contains(err.Error(), "a session's state is bytes or None, not str") {
				t.Errorf("%v", err)
			}
			if _, err := run("clear", "x"); err != nil || s.state != nil {
				t.Errorf("%v; the state is %q", err, s.state)
			}
			s.lost = errors.New("the session is lost")
			if _, err := run(form.count, "x"); !errors.Is(err, handlers.ErrNotTried) {
				t.Errorf("%v; want that it was not tried", err)
			}
		})
	}
}

func TestStateWithoutASession(t *testing.T) {
	t.Parallel()
	p := startApp(t, stateful, nil, "count")
	_, err := handle(t.Context(), handler(t, p, "count"), &triggers.Message{Body: []byte("x"), Session: new(memorySession)})
	if err == nil || !strings.Contains(err.Error(), "set session_state: true in the trigger") {
		t.Errorf("%v", err)
	}
}
