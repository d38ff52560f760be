package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// For a batch a function returns a verdict on each message, or the result of the call.
func TestVerdictsOnABatch(t *testing.T) {
	t.Parallel()
	const source = `
const { Outputs, Reject, Retry, Verdicts } = require('drover');
const kinds = () => ({
  done: undefined, null: null, reject: new Reject('no'), retry: new Retry('busy', { after: 2500 }), fail: new TypeError('bad'), text: 'its own', json: { a: 1 },
  sends: new Outputs({ log: ['a', 'b'] }, 'r'), unsendable: Promise.resolve(), unknown: new Outputs({ other: 'x' }),
});
const verdicts = (messages) => new Verdicts(messages.map((m) => kinds()[m.text()]), new Outputs({ alerts: 'of all' }, messages.length));
exports.verdicts = verdicts;
exports.later = (messages, context) => new Promise((resolve) => setImmediate(() => resolve(verdicts(messages))));
exports.averdicts = async (messages, context) => {
  if (context.function !== 'averdicts' || context.cancelled) throw new Error('no context');
  return verdicts(messages);
};
exports.other = (messages) => ({
  few: new Verdicts([undefined]), stranger: new Verdicts({ 'none such': undefined }), 'by id': new Verdicts({ 'by id': new Reject('this one') }),
  map: new Verdicts(new Map([['map', new Reject('this one')]])), text: 'all', nothing: undefined,
})[messages[0].text()];
`
	takesBatches := func(cfg *workers.Config) {
		for i := range cfg.Functions {
			cfg.Functions[i].Batch, cfg.Functions[i].Outputs = 1000, []string{"log", "alerts"}
		}
	}
	p := startApp(t, files{"index.js": source}, takesBatches, "verdicts", "later", "averdicts", "other")
	run := func(function string, bodies ...string) (handlers.BatchResult, error) {
		t.Helper()
		h, err := p.HandlerOf(function)
		if err != nil {
			t.Fatal(err)
		}
		var messages []*triggers.Message
		for _, body := range bodies {
			messages = append(messages, &triggers.Message{ID: body, Body: []byte(body), Attempt: 1})
		}
		return h.HandleBatch(soon(t), messages)
	}
	text := func(r handlers.Result) string {
		out := string(r.Output)
		if after, later := handlers.RetryDelay(r.Err); later {
			out = fmt.Sprintf("retry after %v: %v", after, r.Err)
		} else if handlers.Rejected(r.Err) {
			out = "reject: " + r.Err.Error()
		} else if r.Err != nil {
			out = "fail: " + r.Err.Error()
		}
		for _, s := range r.Sent {
			out += fmt.Sprintf(" [%s: %s]", s.Output, s.Body)
		}
		return out
	}
	bodies := []string{"done", "null", "reject", "retry", "fail", "text", "json", "sends", "unsendable", "unknown"}
	want := []string{
		"", "", "reject: no", "retry after 2.5s: busy", "fail: TypeError: bad", "its own", `{"a":1}`, "r [log: a] [log: b]", "reject: returned a Promise", "reject: returned a message for the output",
	}
	for _, function := range []string{"verdicts", "later", "averdicts"} {
		got, err := run(function, bodies...)
		if err != nil || len(got.Each) != len(want) {
			t.Fatalf("%s: %d verdicts, %v", function, len(got.Each), err)
		}
		for i, r := range got.Each {
			if is := text(r); is != want[i] && (i < 8 || !strings.HasPrefix(is, want[i])) {
				t.Errorf("%s: %s: %q, want %q", function, bodies[i], is, want[i])
			}
		}
		if whole := text(got.Whole); whole != "10 [alerts: of all]" {
			t.Errorf("%s: the result of the call is %q", function, whole)
		}
	}
	for first, want := range map[string]string{
		"few": "Error: Verdicts has 1 verdicts for 2 messages; pass one for each", "stranger": "Error: Verdicts has a verdict on 'none such', but no message in this batch has this ID",
	} {
		if _, err := run("other", first, "second"); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", first, err, want)
		}
	}
	for _, first := range []string{"by id", "map"} {
		if got, err := run("other", first, "second"); err != nil || len(got.Each) != 2 || text(got.Each[0]) != "reject: this one" || text(got.Each[1]) != "" {
			t.Errorf("%s: %+v, %v", first, got, err)
		}
	}
	for first, want := range map[string]string{"text": "all", "nothing": ""} {
		if got, err := run("other", first, "second"); err != nil || len(got.Each) > 0 || text(got.Whole) != want {
			t.Errorf("%s: %+v, %v", first, got, err)
		}
	}
}
