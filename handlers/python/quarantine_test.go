package python

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// A message that kills its worker repeatedly delays no other message: its later attempts
// begin alone, and its deaths delay no start of a worker.
func TestAMessageThatKillsRunsAlone(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import os
async def f(message):
    if message.body == b"poison": os._exit(9)
    return str(os.getpid())
`, nil, "f")
	pid := func() string {
		t.Helper()
		out, err := call(t, p, "f", &triggers.Message{ID: "innocent", Body: []byte("innocent")})
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	poison := func() {
		t.Helper()
		if _, err := call(t, p, "f", &triggers.Message{ID: "poison", Body: []byte("poison")}); err == nil || !strings.Contains(err.Error(), "exit status 9") {
			t.Fatalf("the culprit ended with %v", err)
		}
	}
	first := pid()
	poison()
	second := pid()
	if second == first {
		t.Error("the first attempt did not kill the worker of the others")
	}
	for range 10 {
		poison()
		if now := pid(); now != second {
			t.Fatalf("the worker of the others was replaced: %s, now %s", second, now)
		}
	}
}

func TestCrashesThatAreExplainedDelayNoStart(t *testing.T) {
	t.Parallel()
	log := newLines()
	p := startApp(t, `
import os
async def f(message):
    if message.body == b"poison": os._exit(9)
`, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	for i := range 8 { // with the back-off the last start would come 6 s after its death
		if _, err := call(t, p, "f", &triggers.Message{ID: fmt.Sprint("innocent", i)}); err != nil {
			t.Fatal(err)
		}
		_, _ = call(t, p, "f", &triggers.Message{ID: fmt.Sprint("poison", i), Body: []byte("poison")})
	}
	eventually(t, "eight deaths", func() bool { return log.count("a worker died") == 8 })
	if log.count("in=0s") != 8 {
		t.Error("a start was delayed")
	}
}

// count is how often a text was logged.
func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

// Any number of suspects can wait to run alone.
func TestManySuspects(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import asyncio, os
async def f(message):
    await asyncio.sleep(0.01)
    if message.body == b"poison": os._exit(9)
    return message.body
`, func(c *workers.Config) { c.Settings.Processes = 2 }, "f")
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			body := fmt.Sprint(i)
			if i%33 == 0 {
				body = "poison"
			}
			out, err := call(t, p, "f", &triggers.Message{ID: fmt.Sprint(i), Body: []byte(body), Enqueued: time.Now()})
			if bad := err != nil; bad != (body == "poison") {
				t.Errorf("%d: %s, %v", i, out, err)
			}
		})
	}
	all.Wait()
}
