package telemetry

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestCompletionsOnATerminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := NewCompletions(true)
		f := c.Of(slog.New(slog.NewTextHandler(&out, nil)).With("function", "f"))
		c.Configure(nil)
		logged := func(n int) (yes int) {
			for range n {
				if f.CountMessage() {
					yes++
				}
			}
			return yes
		}
		// At most 20 a second are logged.
		for range 3 {
			if got := logged(20); got != 20 {
				t.Fatalf("%d of 20 are logged", got)
			}
			time.Sleep(time.Second)
		}
		// At a higher rate, only the first ones are, until a second is slower.
		if got := logged(70); got != 20 {
			t.Fatalf("%d of 70 are logged, want 20", got)
		}
		time.Sleep(900 * time.Millisecond)
		if got := logged(1); got != 0 {
			t.Fatal("one is logged while many complete")
		}
		time.Sleep(1200 * time.Millisecond) // a check at 1 s, and one at 2 s
		synctest.Wait()
		if text := out.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, `msg="more messages completed" function=f count=51 in=2s`) {
			t.Fatalf("the log is\n%s", text)
		}
		if got := logged(20); got != 20 {
			t.Fatalf("after a slower second %d of 20 are logged", got)
		}
		// While many complete, their number is logged every ten seconds, and at the end.
		out.Reset()
		for range 125 {
			logged(10)
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		c.Flush()
		if text := out.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "in=10s") {
			t.Fatalf("the log is\n%s", text)
		}
	})
}

func TestCompletionsByConfiguration(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for _, test := range []struct {
		terminal bool
		done     *bool
		logged   int
	}{{false, nil, 0}, {false, &yes, 100}, {false, &no, 0}, {true, &yes, 100}, {true, &no, 0}} {
		c := NewCompletions(test.terminal)
		f := c.Of(slog.New(slog.DiscardHandler))
		if f.CountMessage() {
			t.Error("a message is logged before there is a configuration")
		}
		c.Configure(test.done)
		logged := 0
		for range 100 {
			if f.CountMessage() {
				logged++
			}
		}
		if logged != test.logged {
			t.Errorf("%+v: %d are logged", test, logged)
		}
	}
	if (*FunctionCompletions)(nil).CountMessage() {
		t.Error("a function without completions logs one")
	}
}
