package storagequeue

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/triggertest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		triggertest.Run(t, func(t *testing.T, o triggertest.Options) *triggertest.Source {
			if o.Ordered {
				t.Skip("storage queues have no order")
			}
			return a.source(a.newQueue(t))
		})
	})
}

// source is a queue for the suites.
func (a *account) source(queue string) *triggertest.Source {
	return &triggertest.Source{
		Open: func(t testing.TB) triggers.Trigger { return a.open(t, queue, nil) },
		Send: func(t testing.TB, ms ...triggers.Message) {
			for _, m := range ms {
				a.send(t, queue, string(m.Body))
			}
		},
		Crash:        func(_ testing.TB, tr triggers.Trigger) { tr.(*trigger).crash() },
		Dead:         func(t testing.TB) []triggertest.Dead { return a.dead(t, queue) },
		Lease:        time.Second,
		NoAttributes: true,
		MaxBody:      48 << 10,
	}
}

// A renewal must not change a message: the SDK would send its text, too.
func TestRenewalsKeepTheText(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue := a.newQueue(t)
		const text = " <a>&amp;\r\n\t\"käse\" ☃ "
		if _, err := a.raw(t, queue).EnqueueMessage(t.Context(), text, nil); err != nil {
			t.Fatal(err)
		}
		tr := a.open(t, queue, func(c *Config) { c.Encoding = Text })
		d := receive(t, tr, 1)[0]
		before := string(d.Message.Body)
		settle(t, d, triggers.Verdict{Kind: triggers.Retry})
		d = receive(t, tr, 1)[0]
		if got := string(d.Message.Body); got != before || strings.ReplaceAll(got, "\r", "") != strings.ReplaceAll(text, "\r", "") {
			t.Errorf("sent %q; received %q, and %q after an update", text, before, got)
		}
		done(t, d)
	})
}

func TestEncodings(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	for _, test := range []struct {
		encoding Encoding
		text     string
		want     string // of the body
		misfit   string
	}{
		{Base64, "aGVsbG8=", "hello", ""},
		{Base64, "hello!", "", "the body is not base64; if senders do not encode it, set encoding: text"},
		{Base64, "", "", ""},
		{Text, "aGVsbG8=", "aGVsbG8=", ""},
		{Text, "hello!", "hello!", ""},
		{Auto, "aGVsbG8=", "hello", ""},
		{Auto, "hello!", "hello!", ""},
	} {
		t.Run(fmt.Sprintf("%s %q", test.encoding, test.text), func(t *testing.T) {
			queue := a.newQueue(t)
			tr := a.open(t, queue, func(c *Config) { c.Encoding, c.PoisonFormat = test.encoding, PoisonBody })
			if _, err := a.raw(t, queue).EnqueueMessage(t.Context(), test.text, nil); err != nil {
				t.Fatal(err)
			}
			if test.misfit == "" {
				d := receive(t, tr, 1)[0]
				if string(d.Message.Body) != test.want {
					t.Errorf("%q, want %q", d.Message.Body, test.want)
				}
				done(t, d)
				return
			}
			if l := tr.newLeasedMessage(&azqueue.DequeuedMessage{MessageText: &test.text}, time.Now()); l.misfit != test.misfit {
				t.Errorf("%q, want %q", l.misfit, test.misfit)
			}
			// It is moved as it is, and no function sees it.
			eventually(t, "the poison queue has the text", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				if got, _ := tr.Receive(ctx, 1); len(got) > 0 {
					t.Fatal("it was delivered")
				}
				texts := a.texts(t, queue+PoisonSuffix)
				return len(texts) == 1 && texts[0] == test.text && a.Len(queue) == 0
			})
		})
	}
}

func TestPolling(t *testing.T) {
	p := pauses(10 * time.Second)
	var last time.Duration
	for range 12 {
		last = p.NextBackOff()
	}
	var total time.Duration
	for range 1000 {
		d := p.NextBackOff()
		if d > 10*time.Second {
			t.Fatalf("a pause of %v; max_poll_interval is 10s", d)
		}
		total += d
	}
	if perMinute := 1000 * float64(time.Minute) / float64(total); perMinute > 7 || last < 8*time.Second {
		t.Errorf("%.1f requests a minute at rest, after a pause of %v", perMinute, last)
	}
}

// The approximate count includes hidden messages; a short queue is counted exactly.
func TestBacklogBeyondAPeek(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue := a.newQueue(t)
		a.send(t, queue, make([]string, 50)...)
		tr := a.open(t, queue, nil)
		ds := receive(t, tr, 10)
		if b, err := tr.Backlog(t.Context()); err != nil || b.Ready != 40 || b.AtLeast {
			t.Errorf("%+v, %v; want 40: 50 sent, 10 leased", b, err)
		}
		done(t, ds...)
	})
}
