package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// Results for named outputs are sent to them; a result that cannot be sent rejects the message.
func TestNamedOutputs(t *testing.T) {
	t.Parallel()
	app := files{"index.js": `
const { Output, Outputs } = require('drover');
const returns = {
  all: () => new Outputs({ $x: Buffer.from('é'), a: { id: 7 }, b: ['1', new Output([1, 2], { sessionId: 's' }), null] }, 'plain'),
  none: () => new Outputs({ a: undefined, b: [] }),
  empty: () => new Outputs({ a: '', b: [Buffer.alloc(0), new Output(null)] }),
  plain: () => ({ a: 1 }),
  unknown: () => new Outputs({ a: '1', c: '2' }),
  prototype: () => new Outputs({ constructor: '1' }),
  unsendable: () => new Outputs({ a: '1', b: ['1', Symbol('s')] }),
  nested: () => new Outputs({ a: [new Outputs({ b: '1' })] }),
  inside: () => [new Outputs({ b: '1' })],
  many: () => new Outputs({ a: new Array(100_001).fill('x') }),
  list: () => new Outputs(['x']),
  'unsendable result': () => new Outputs({ a: '1' }, Symbol('s')),
};
exports.f = (message) => returns[message.text()]();
exports.g = async (message) => returns[message.text()]();
exports.unnamed = exports.f;
`}
	type want struct {
		sent   []string
		output string
		err    string // of a rejection
	}
	for _, function := range []string{"f", "g"} {
		for results, all := range map[protocol.Results]map[string]want{
			"": {
				"all": {[]string{"$x é", `a {"id":7} application/json`, "b 1", "b [1,2] application/jsons"}, "plain", ""}, "none": {}, "empty": {sent: []string{"a", "b", "b"}},
				"plain":             {output: `{"a":1}`},
				"unknown":           {err: `returned a message for the output "c", which the function does not have; it has: a, b, $x`},
				"prototype":         {err: `returned a message for the output "constructor"`},
				"unsendable":        {err: "returned a symbol, which cannot be sent"},
				"nested":            {err: "returned Outputs as one of the messages in Outputs (for the output a)"},
				"inside":            {err: "returned an Array with an Outputs in it, which cannot be sent"},
				"many":              {err: "returned 100001 messages for outputs; one call can send 100000"},
				"unsendable result": {err: "returned a symbol, which cannot be sent"},
			},
			protocol.Dropped: {
				"all": {[]string{"$x é", `a {"id":7} application/json`, "b 1", "b [1,2] application/jsons"}, "", ""}, "plain": {}, "unsendable result": {sent: []string{"a 1"}},
				"unknown": {err: "which the function does not have"},
			},
			protocol.Shown: {"unknown": {err: "which the function does not have"}, "unsendable": {err: "which cannot be sent"}, "unsendable result": {}},
		} {
			p := startApp(t, app, func(c *workers.Config) {
				c.Functions[0].Outputs, c.Functions[0].Results = []string{"a", "b", "$x"}, results
			}, function)
			for body, want := range all {
				ctx := &sentContext{Context: soon(t)}
				out, err := handle(ctx, t, p, function, &triggers.Message{Body: []byte(body)})
				if !slices.Equal(ctx.sent, want.sent) || string(out) != want.output {
					t.Errorf("%s %s %s: sent %q, returned %q (%v); want %q and %q", function, results, body, ctx.sent, out, err, want.sent, want.output)
				}
				if handlers.Rejected(err) != (want.err != "") || err != nil && !strings.Contains(err.Error(), want.err) {
					t.Errorf("%s %s %s: %v, want %q", function, results, body, err, want.err)
				}
			}
		}
	}
	for _, results := range []protocol.Results{"", protocol.Dropped, protocol.Shown} {
		p := startApp(t, app, func(c *workers.Config) { c.Functions[0].Results = results }, "unnamed")
		if _, err := call(t, p, "unnamed", &triggers.Message{Body: []byte("all")}); !handlers.Rejected(err) || !strings.Contains(err.Error(), "returned Outputs, but the function has no named outputs") {
			t.Errorf("%s: %v", results, err)
		}
		if _, err := call(t, p, "unnamed", &triggers.Message{Body: []byte("list")}); handlers.Rejected(err) || !strings.Contains(fmt.Sprint(err), "TypeError: Outputs takes an object of messages by the names of outputs") {
			t.Errorf("%s: %v", results, err)
		}
	}
}

// The module's types cover all exports, and all members of messages and contexts.
func TestTypesAreComplete(t *testing.T) {
	t.Parallel()
	const list = `
const { Context, Message } = require('./worker/message');
const call = { meta: Buffer.alloc(12), body: Buffer.alloc(0), function: { name: 'f' }, deadline: 0, enqueued: 0, attempt: 1 };
const message = new Message(call);
const names = [...Object.keys(require('./worker/modules/drover'))];
for (const one of [message, new Context(call, message)]) names.push(...Object.keys(one), ...Object.getOwnPropertyNames(Object.getPrototypeOf(one)));
console.log(names.filter((name) => name !== 'constructor').join('\n'));
`
	needNode(t)
	out, err := exec.CommandContext(t.Context(), "node", "-e", list).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	types, err := os.ReadFile(filepath.Join("worker", "modules", "drover", "index.d.ts"))
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(out))
	if len(names) < 30 {
		t.Fatalf("only %q", names)
	}
	for _, name := range names {
		if !strings.Contains(string(types), " "+name) {
			t.Errorf("index.d.ts lacks %s", name)
		}
	}
}
