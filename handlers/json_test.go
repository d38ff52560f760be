package handlers_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

type order struct {
	ID int `json:"id"`
}

func TestJSON(t *testing.T) {
	var got order
	var attempt int
	f := handlers.JSON(func(ctx context.Context, o order) error {
		got, attempt = o, handlers.MessageOf(ctx).Attempt
		return nil
	})
	out, err := f.Handle(t.Context(), &triggers.Message{Body: []byte(`{"id": 7}`), Attempt: 3})
	if err != nil || out != nil || got.ID != 7 || attempt != 3 {
		t.Errorf("%q, %v: %+v, attempt %d", out, err, got, attempt)
	}
	got = order{}
	for body, want := range map[string]string{
		"":            "the body does not fit handlers_test.order: unexpected end of JSON input",
		`{"id": "x"}`: "the body does not fit handlers_test.order: json: cannot unmarshal string",
		`{"id": 7} 8`: "invalid character '8' after top-level value",
	} {
		_, err := f.Handle(t.Context(), &triggers.Message{Body: []byte(body)})
		if !handlers.Rejected(err) || !strings.Contains(err.Error(), want) || got.ID != 0 {
			t.Errorf("%q: %v; want a rejection: %s", body, err, want)
		}
	}
	if m := handlers.MessageOf(t.Context()); m != nil {
		t.Errorf("a context without a call has the message %+v", m)
	}
}

func TestJSONKeepsErrors(t *testing.T) {
	cause := errors.New("no such customer")
	f := handlers.JSON(func(context.Context, order) error { return cause })
	if _, err := f.Handle(t.Context(), &triggers.Message{Body: []byte(`{}`)}); !errors.Is(err, cause) || handlers.Rejected(err) {
		t.Errorf("%v; want a failed attempt with the function's error", err)
	}
}

// described is the context of a call that has properties.
type described struct {
	context.Context
	properties triggers.Properties
}

func (d *described) Describe(properties triggers.Properties) { d.properties = properties }

func TestJSONResult(t *testing.T) {
	ctx := &described{Context: t.Context()}
	body := &triggers.Message{Body: []byte(`{"id": 7}`)}
	f := handlers.JSONResult(func(_ context.Context, o order) (map[string]int, error) { return map[string]int{"total": o.ID}, nil })
	if out, err := f.Handle(ctx, body); err != nil || string(out) != `{"total":7}` || ctx.properties[triggers.ContentType] != "application/json" {
		t.Errorf("%s, %v, %v", out, err, ctx.properties)
	}
	created := handlers.JSONResult(func(ctx context.Context, o order) (order, error) {
		handlers.Respond(ctx, 201, [2]string{"Location", "/orders/7"})
		return o, nil
	})
	if out, err := created.Handle(ctx, body); err != nil || string(out) != `{"id":7}` || ctx.properties[triggers.ContentType] != "application/json" || ctx.properties[triggers.HTTPStatus] != "201" {
		t.Errorf("with a status: %s, %v, %v", out, err, ctx.properties)
	}
	text := handlers.JSONResult(func(ctx context.Context, o order) (order, error) {
		handlers.Respond(ctx, 200, [2]string{"Content-Type", "text/x"})
		return o, nil
	})
	if _, err := text.Handle(ctx, body); err != nil || ctx.properties[triggers.ContentType] != "" {
		t.Errorf("its own content type: %v, %v", err, ctx.properties)
	}
	ctx.properties = nil
	nothing := handlers.JSONResult(func(context.Context, order) (*order, error) { return nil, nil })
	if out, err := nothing.Handle(ctx, body); out != nil || err != nil || ctx.properties != nil {
		t.Errorf("a nil pointer is the result %q, %v, %v", out, err, ctx.properties)
	}
	wrong := handlers.JSONResult(func(context.Context, order) (float64, error) { return math.NaN(), nil })
	if _, err := wrong.Handle(ctx, body); !handlers.Rejected(err) || !strings.Contains(err.Error(), "the result cannot be encoded as JSON: json: unsupported value: NaN") {
		t.Errorf("%v", err)
	}
}

func TestJSONBatch(t *testing.T) {
	messages := []*triggers.Message{{ID: "1", Body: []byte(`{"id": 1}`)}, {ID: "2", Body: []byte(`no JSON`)}, {ID: "3", Body: []byte(`{"id": 3}`)}}
	cause := errors.New("cause")
	var seen []string
	f := handlers.JSONBatch(func(_ context.Context, batch []handlers.Decoded[order]) ([]handlers.Result, error) {
		for _, each := range batch {
			seen = append(seen, each.Message.ID)
		}
		return []handlers.Result{handlers.JSONOutput(batch[0].Body), {Err: cause}}, nil
	})
	result, err := f.HandleBatch(t.Context(), messages)
	if err != nil || len(result.Each) != 3 || strings.Join(seen, " ") != "1 3" {
		t.Fatalf("%+v, %v, %v", result, err, seen)
	}
	if each := result.Each; string(each[0].Output) != `{"id":1}` || each[0].Properties[triggers.ContentType] != "application/json" ||
		!handlers.Rejected(each[1].Err) || !errors.Is(each[2].Err, cause) {
		t.Errorf("%+v", each)
	}

	seen = nil
	result, err = f.HandleBatch(t.Context(), messages[1:2])
	if err != nil || len(seen) != 0 || !handlers.Rejected(result.Each[0].Err) {
		t.Errorf("a batch without a body that fits: %+v, %v, called with %v", result, err, seen)
	}
	done := handlers.JSONBatch(func(context.Context, []handlers.Decoded[order]) ([]handlers.Result, error) { return nil, nil })
	if result, err := done.HandleBatch(t.Context(), messages); err != nil || !handlers.Rejected(result.Each[1].Err) || result.Each[0].Err != nil || result.Each[2].Err != nil {
		t.Errorf("without results: %+v, %v", result, err)
	}
	short := handlers.JSONBatch(func(context.Context, []handlers.Decoded[order]) ([]handlers.Result, error) {
		return make([]handlers.Result, 1), nil
	})
	if _, err := short.HandleBatch(t.Context(), messages); err == nil || !strings.Contains(err.Error(), "returned 1 results for 2 messages") {
		t.Errorf("%v", err)
	}
	failing := handlers.JSONBatch(func(context.Context, []handlers.Decoded[order]) ([]handlers.Result, error) { return nil, cause })
	if _, err := failing.HandleBatch(t.Context(), messages); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if r := handlers.JSONOutput(math.Inf(1)); !handlers.Rejected(r.Err) {
		t.Errorf("%+v", r)
	}
}
