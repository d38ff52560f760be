package python

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// sentContext is the context of a call. It keeps the messages to named outputs.
type sentContext struct {
	context.Context
	sent []string
}

func (s *sentContext) Send(output string, body []byte, properties triggers.Properties) error {
	s.sent = append(s.sent, strings.TrimSpace(fmt.Sprint(output, " ", string(body), " ", properties["content_type"], properties["session_id"])))
	return nil
}

// With every runner, results for named outputs are sent to them; a result that cannot be sent rejects the
// message.
func TestNamedOutputs(t *testing.T) {
	t.Parallel()
	const source = `
import dataclasses, drover
@dataclasses.dataclass
class Receipt:
    id: int
RETURNS = {
    "all": lambda: drover.Outputs({"$x": b"\xc3\xa9"}, a=Receipt(7), b=("1", drover.Output([1, 2], session_id="s"), None), result="plain"),
    "none": lambda: drover.Outputs(a=None, b=[]),
    "empty": lambda: drover.Outputs(a="", b=[b"", drover.Output(None)]),
    "plain": lambda: {"a": 1},
    "unknown": lambda: drover.Outputs(a="1", c="2"),
    "unsendable": lambda: drover.Outputs(a="1", b=["1", object()]),
    "generator": lambda: drover.Outputs(a=(n for n in range(2))),
    "nested": lambda: drover.Outputs(a=[drover.Outputs(b="1")]),
    "many": lambda: drover.Outputs(a=["x"] * 100_001),
    "list": lambda: drover.Outputs(["x"]),
    "unsendable result": lambda: drover.Outputs(a="1", result=object()),
}
def f(body): return RETURNS[body.decode()]()
async def g(body): return f(body)
def unnamed(body): return f(body)
`
	type want struct {
		sent   []string
		output string
		err    string // of a rejection
	}
	for name, test := range map[string]struct {
		change func(*workers.Config)
		want   map[string]want
	}{
		"sent": {nil, map[string]want{
			"all":  {[]string{"$x é", `a {"id":7} application/json`, "b 1", "b [1,2] application/jsons"}, "plain", ""},
			"none": {}, "empty": {sent: []string{"a", "b", "b"}}, "plain": {output: `{"a":1}`},
			"unknown":           {err: "returned a message for the output 'c', which the function does not have; it has: a, b, $x"},
			"unsendable":        {err: "returned an object, which cannot be sent"},
			"generator":         {err: "returned a generator, whose code has not run: return a list or another complete value (for the output a)"},
			"nested":            {err: "returned drover.Outputs as one of the messages in drover.Outputs (for the output a)"},
			"many":              {err: "returned 100001 messages for outputs; one call can send 100000"},
			"unsendable result": {err: "returned an object, which cannot be sent"},
		}},
		"results are dropped": {func(c *workers.Config) { setResults(c, protocol.Dropped) }, map[string]want{
			"all": {[]string{"$x é", `a {"id":7} application/json`, "b 1", "b [1,2] application/jsons"}, "", ""}, "plain": {},
			"unsendable result": {sent: []string{"a 1"}}, "unknown": {err: "which the function does not have"},
		}},
		"results are shown": {func(c *workers.Config) { setResults(c, protocol.Shown) }, map[string]want{
			"unknown": {err: "which the function does not have"}, "unsendable": {err: "which cannot be sent"}, "unsendable result": {},
		}},
		"in threads": {func(c *workers.Config) { c.Settings.Threads = 3 }, map[string]want{"all": {[]string{"$x é", `a {"id":7} application/json`, "b 1", "b [1,2] application/jsons"}, "plain", ""}}},
	} {
		for _, function := range []string{"f", "g"} {
			t.Run(name+" "+function, func(t *testing.T) {
				t.Parallel()
				p := startApp(t, source, func(c *workers.Config) {
					c.Functions[0].Outputs = []string{"a", "b", "$x"}
					if test.change != nil {
						test.change(c)
					}
				}, function)
				for body, want := range test.want {
					ctx := &sentContext{Context: soon(t)}
					out, err := handle(ctx, handler(t, p, function), &triggers.Message{Body: []byte(body)})
					if !slices.Equal(ctx.sent, want.sent) || string(out) != want.output {
						t.Errorf("%s: sent %q, returned %q (%v); want %q and %q", body, ctx.sent, out, err, want.sent, want.output)
					}
					if handlers.Rejected(err) != (want.err != "") || err != nil && !strings.Contains(err.Error(), want.err) {
						t.Errorf("%s: %v, want %q", body, err, want.err)
					}
				}
			})
		}
	}
	for _, results := range []protocol.Results{"", protocol.Dropped, protocol.Shown} {
		p := startApp(t, source, func(c *workers.Config) { setResults(c, results) }, "unnamed")
		if _, err := call(t, p, "unnamed", &triggers.Message{Body: []byte("all")}); !handlers.Rejected(err) || !strings.Contains(err.Error(), "returned drover.Outputs, but the function has no named outputs") {
			t.Errorf("%s: %v", results, err)
		}
		if _, err := call(t, p, "unnamed", &triggers.Message{Body: []byte("list")}); handlers.Rejected(err) || !strings.Contains(fmt.Sprint(err), "TypeError: Outputs takes a dict of messages by the names of outputs, not list") {
			t.Errorf("%s: %v", results, err)
		}
	}
}

func setResults(c *workers.Config, results protocol.Results) {
	for i := range c.Functions {
		c.Functions[i].Results = results
	}
}
