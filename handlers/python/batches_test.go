package python

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// takesBatches makes all functions of a pool take batches, with an output.
func takesBatches(cfg *workers.Config) {
	for i := range cfg.Functions {
		cfg.Functions[i].Batch, cfg.Functions[i].Outputs = 1000, []string{"log", "alerts"}
	}
}

// batchOf returns a message for each body, with the bodies as IDs.
func batchOf(bodies ...string) (out []*triggers.Message) {
	for _, body := range bodies {
		out = append(out, &triggers.Message{ID: body, Body: []byte(body), Attempt: 1})
	}
	return out
}

// describeResult returns a result as text.
func describeResult(r handlers.Result) (out string) {
	switch after, later := handlers.RetryDelay(r.Err); {
	case later:
		out = fmt.Sprintf("retry after %v: %v", after, r.Err)
	case handlers.Rejected(r.Err):
		out = "reject: " + r.Err.Error()
	case r.Err != nil:
		out = "fail: " + r.Err.Error()
	default:
		out = string(r.Output)
	}
	for _, s := range r.Sent {
		out += fmt.Sprintf(" [%s: %s]", s.Output, s.Body)
	}
	return out
}

// With every runner, a function returns a verdict on each message of a batch.
func TestVerdictsOnABatch(t *testing.T) {
	t.Parallel()
	const source = `
import asyncio, concurrent.futures, drover
def verdicts(messages):
    kinds = {
        "done": None, "reject": drover.Reject("no"), "class": drover.Reject, "retry": drover.Retry("busy", after=2.5), "backoff": drover.Retry("busy"),
        "fail": ValueError("bad"), "text": "its own", "json": {"a": 1}, "sends": drover.Outputs(log=["a", "b"], result="r"),
        "unsendable": object(), "unknown": drover.Outputs(other="x"),
    }
    return drover.Verdicts([kinds[m.text()] for m in messages], result=drover.Outputs(alerts="of all", result=len(messages)))
async def averdicts(messages, context):
    assert context.function == "averdicts" and context.remaining() is None and not context.cancelled
    await asyncio.sleep(0)
    return verdicts(messages)
def later(messages, context):
    return averdicts_later(messages)
async def averdicts_later(messages):
    await asyncio.sleep(0)
    return verdicts(messages)
`
	names := []string{"verdicts", "averdicts", "later"}
	bodies := []string{"done", "reject", "class", "retry", "backoff", "fail", "text", "json", "sends", "unsendable", "unknown", "done"}
	want := []string{
		"", "reject: no", "reject: rejected", "retry after 2.5s: busy", "fail: Retry: busy", "fail: ValueError: bad", "its own", `{"a":1}`, "r [log: a] [log: b]",
		"reject: returned an object, which cannot be sent", "reject: returned a message for the output 'other', which the function does not have; it has: log, alerts", "",
	}
	for _, threads := range []int{1, 4} {
		for _, name := range names {
			t.Run(fmt.Sprint(name, " in ", threads), func(t *testing.T) {
				t.Parallel()
				p := startApp(t, source, func(cfg *workers.Config) { takesBatches(cfg); cfg.Settings.Threads = threads }, name)
				got, err := handler(t, p, name).HandleBatch(t.Context(), batchOf(bodies...))
				if err != nil || len(got.Each) != len(want) {
					t.Fatalf("%d verdicts, %v", len(got.Each), err)
				}
				for i, r := range got.Each {
					if text := describeResult(r); text != want[i] && (!strings.HasSuffix(want[i], "sent") || !strings.HasPrefix(text, want[i])) {
						t.Errorf("%s: %q, want %q", bodies[i], text, want[i])
					}
				}
				if whole := describeResult(got.Whole); whole != "12 [alerts: of all]" {
					t.Errorf("the result of the call is %q", whole)
				}
			})
		}
	}
}

// Verdicts that do not fit the batch fail it, and a plain value is the result of the call.
func TestResultsOfABatch(t *testing.T) {
	t.Parallel()
	const source = `
import drover
RETURNS = {
    "nothing": None, "text": "all", "list": [1, 2], "sends": drover.Outputs(log="x"), "few": drover.Verdicts([None]), "stranger": drover.Verdicts({"none such": None}),
    "by id": drover.Verdicts({"by id": drover.Reject("this one")}), "none by id": drover.Verdicts({}), "object": object(),
}
def f(messages): return RETURNS[messages[0].text()]
def g(messages): raise drover.Retry("all of them", after=5)
`
	p := startApp(t, source, takesBatches, "f", "g")
	f := handler(t, p, "f")
	for first, want := range map[string]string{
		"nothing": "", "text": "all", "list": "[1,2]", "sends": " [log: x]", "few": "fail: ValueError: drover.Verdicts has 1 verdicts for 2 messages; pass one for each",
		"stranger": "fail: ValueError: drover.Verdicts has a verdict on 'none such', but no message in this batch has this id", "object": "reject: returned an object",
	} {
		got, err := f.HandleBatch(t.Context(), batchOf(first, "second"))
		got.Whole.Err = err
		if text := describeResult(got.Whole); text != want && (err == nil || !strings.HasPrefix(text, want)) || len(got.Each) > 0 {
			t.Errorf("%s: %q, want %q", first, text, want)
		}
	}
	got, err := f.HandleBatch(t.Context(), batchOf("by id", "second"))
	if err != nil || len(got.Each) != 2 || describeResult(got.Each[0]) != "reject: this one" || describeResult(got.Each[1]) != "" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = f.HandleBatch(t.Context(), batchOf("none by id")); err != nil || len(got.Each) != 1 || got.Each[0].Err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = handler(t, p, "g").HandleBatch(t.Context(), batchOf("a", "b"))
	if after, asked := handlers.RetryDelay(err); !asked || after != 5*time.Second {
		t.Errorf("%v after %v", err, after)
	}
}

// A batch that kills its worker fails as a whole; its messages run again in their own worker,
// and only the one that kills that worker alone has failed.
func TestABatchThatKillsItsWorker(t *testing.T) {
	t.Parallel()
	const source = `
import os
def f(messages):
    if any(m.body == b"bad" for m in messages): os._exit(7)
    return str(os.getpid())
`
	p := startApp(t, source, takesBatches, "f")
	h := handler(t, p, "f")
	all := batchOf("a", "b", "bad", "c")
	ctx := t.Context()
	if _, err := h.HandleBatch(ctx, all); err == nil || !strings.Contains(err.Error(), "exit status 7") || errors.Is(err, handlers.ErrNotTried) {
		t.Errorf("%v", err)
	}
	var isolated string
	for _, half := range [][]*triggers.Message{all[:2], all[3:]} {
		got, err := h.HandleBatch(ctx, half)
		if pid := string(got.Whole.Output); err != nil || isolated != "" && len(half) > 1 && pid != isolated {
			t.Errorf("%v, in %s", err, pid)
		} else {
			isolated = pid
		}
	}
	if _, err := h.HandleBatch(ctx, all[2:3]); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("%v", err)
	}
	// It is known now: a batch with it is divided without a call.
	begin := p.Stats().Restarts
	if _, err := h.HandleBatch(ctx, batchOf("bad", "d")); !errors.Is(err, handlers.ErrRunAgain) {
		t.Errorf("%v", err)
	}
	if got := p.Stats().Restarts; fmt.Sprint(got) != fmt.Sprint(begin) {
		t.Errorf("workers were replaced: %v, before: %v", got, begin)
	}
}

// A batch that is too large for a frame is divided, and a message that is too large is rejected.
func TestABatchLargerThanAFrame(t *testing.T) {
	t.Parallel()
	p := startApp(t, "def f(messages): return str(sum(len(m.body) for m in messages))\n", func(cfg *workers.Config) { takesBatches(cfg); cfg.MaxFrame = 1 << 20 }, "f")
	h := handler(t, p, "f")
	large := batchOf(strings.Repeat("x", 300<<10), strings.Repeat("y", 300<<10), strings.Repeat("z", 300<<10), strings.Repeat("w", 300<<10))
	for _, m := range large {
		m.ID = m.ID[:1]
	}
	if _, err := h.HandleBatch(t.Context(), large); !errors.Is(err, triggers.ErrTooLarge) || handlers.Rejected(err) {
		t.Errorf("%v", err)
	}
	if got, err := h.HandleBatch(t.Context(), large[:3]); err != nil || string(got.Whole.Output) != fmt.Sprint(900<<10) {
		t.Errorf("%s, %v", got.Whole.Output, err)
	}
	if _, err := h.HandleBatch(t.Context(), batchOf(strings.Repeat("x", 2<<20))); !errors.Is(err, triggers.ErrTooLarge) || !handlers.Rejected(err) {
		t.Errorf("%v", err)
	}
}

// A call with a batch that is cancelled ends like any other, and the worker continues.
func TestABatchIsCancelled(t *testing.T) {
	t.Parallel()
	const source = `
import asyncio, time
def f(messages):
    if len(messages) > 1: time.sleep(60)
async def g(messages):
    if len(messages) > 1: await asyncio.sleep(60)
`
	for _, name := range []string{"f", "g"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := handler(t, startApp(t, source, takesBatches, name), name)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // a busy machine may delay the call by 0.2 s
			defer cancel()
			if _, err := h.HandleBatch(ctx, batchOf("a", "b")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			if _, err := h.HandleBatch(t.Context(), batchOf("c")); err != nil {
				t.Error(err)
			}
		})
	}
}

// A function that does not take batches is called with each message, and one that is moved to
// threads with batches.
func TestBatchesBesideMessages(t *testing.T) {
	t.Parallel()
	const source = `
def one(message): return message.text()
async def many(messages): return [m.text() for m in messages]
`
	p := startApp(t, source, func(cfg *workers.Config) { cfg.Functions[1].Batch = 10 }, "one", "many")
	if got, err := handle(t.Context(), handler(t, p, "one"), batchOf("x")[0]); err != nil || string(got) != "x" {
		t.Errorf("%s, %v", got, err)
	}
	got, err := handler(t, p, "many").HandleBatch(t.Context(), batchOf("x", "y"))
	if err != nil || string(got.Whole.Output) != `["x","y"]` || !slices.Equal([]bool{handler(t, p, "one").TakesBatches(), handler(t, p, "many").TakesBatches()}, []bool{false, true}) {
		t.Errorf("%s, %v", got.Whole.Output, err)
	}
}
