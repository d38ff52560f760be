package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// Bodies and results of all sizes are in flight at once, so that frames begin anywhere in the worker's
// buffers, and the socket is full now and then. Lines are sent between them.
func TestManySizesAtOnce(t *testing.T) {
	t.Parallel()
	log := new(lines)
	p := startApp(t, files{"index.js": `
const { Output } = require('drover');
exports.f = async (message, context) => {
  await null;
  console.log('a line of', message.id);
  context.sessionState = message.body.subarray(0, 10);
  return message.attempt % 2 ? message.body : new Output(message.body, { correlationId: 'c'.repeat(100) });
};
`}, func(c *workers.Config) {
		c.Settings.Coroutines, c.Functions[0].SessionState, c.Log = 64, true, slog.New(slog.NewTextHandler(log, nil))
	}, "f")
	var all sync.WaitGroup
	for i, size := range []int{0, 1, 100, 4 << 10, 10_000, 20_000, 32<<10 - 60, 32 << 10, 40_000, 64<<10 - 100, 64<<10 - 30, 64 << 10, 70_000, 128 << 10, 300_000, 1 << 20} {
		for j := range 20 {
			body := bytes.Repeat([]byte{byte(i), byte(j), 'x'}, size/3+1)[:size]
			all.Go(func() {
				s := new(memorySession)
				got, err := call(t, p, "f", &triggers.Message{ID: "m", Body: body, Attempt: j, OrderingKey: "k", Session: s})
				if err != nil || !bytes.Equal(got, body) || !bytes.Equal(s.state, body[:min(10, size)]) {
					t.Errorf("%d bytes came back as %d, %v, with a state of %d", size, len(got), err, len(s.state))
				}
			})
		}
	}
	all.Wait()
	if n := strings.Count(log.String(), "a line of m"); n != 16*20 {
		t.Errorf("%d lines", n)
	}
}

// A body that a function keeps is not overwritten by later ones.
func TestABodyIsKept(t *testing.T) {
	t.Parallel()
	p := startApp(t, files{"index.js": `
const kept = [];
exports.keep = (message) => { kept.push(message.body); };
exports.all = () => Buffer.concat(kept);
`}, nil, "keep", "all")
	var want []byte
	for i := range 200 {
		body := bytes.Repeat([]byte{byte(i)}, 1+i*i%50_000)
		want = append(want, body...)
		if _, err := call(t, p, "keep", &triggers.Message{Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := call(t, p, "all", &triggers.Message{}); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, or others; %v", len(got), len(want), err)
	}
}

// A function whose calls were quick is not watched closely. If one of them blocks the event loop all the
// same, only that one uses an attempt.
func TestAQuickFunctionThatBlocks(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]string{
		"sync":              "(message) => { if (message.text() === 'poison') for (;;); }",
		"async":             "async (message) => { if (message.text() === 'poison') for (;;); }",
		"after a microtask": "async (message) => { await null; if (message.text() === 'poison') for (;;); }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startApp(t, files{"index.js": "exports.f = " + code + ";\n"}, func(c *workers.Config) { c.Settings.Coroutines = 16 }, "f")
			for range 300 {
				if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
					t.Fatal(err)
				}
			}
			h, err := p.HandlerOf("f")
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for i := range 16 {
				body := fmt.Sprint(i)
				if i == 5 {
					body = "poison"
				}
				all.Go(func() {
					err := handlers.ErrNotTried
					for errors.Is(err, handlers.ErrNotTried) && t.Context().Err() == nil { // as the dispatcher does
						ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
						_, err = h.Handle(ctx, &triggers.Message{ID: body, Body: []byte(body)})
						cancel()
					}
					if body == "poison" && !errors.Is(err, context.DeadlineExceeded) || body != "poison" && err != nil {
						t.Errorf("message %s ended with %v", body, err)
					}
				})
			}
			all.Wait()
		})
	}
}
