package storagequeue

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

func TestSenders(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		queue := a.newQueue(t)
		send := func(t *testing.T, c SenderConfig, bodies ...string) error {
			t.Helper()
			c.Account, c.Queue = a.Account, queue
			s, err := NewSender(c)
			if err != nil {
				return err
			}
			for _, body := range bodies {
				if err := s.Send(t.Context(), &triggers.Message{Body: []byte(body)}); err != nil {
					return errors.Join(err, s.Flush(t.Context()))
				}
			}
			return s.Flush(t.Context())
		}
		if err := send(t, SenderConfig{Encoding: Text}, "<plain> & simple"); err != nil {
			t.Fatal(err)
		}
		if got := a.texts(t, queue); len(got) != 1 || got[0] != "<plain> & simple" {
			t.Errorf("as a text: %q", got)
		}
		if _, err := a.raw(t, queue).ClearMessages(t.Context(), nil); err != nil {
			t.Fatal(err)
		}

		// With a delay, and an end.
		if err := send(t, SenderConfig{Encoding: Base64, Delay: time.Second, TimeToLive: 2 * time.Second}, "later"); err != nil {
			t.Fatal(err)
		}
		if got := a.texts(t, queue); len(got) != 0 {
			t.Errorf("before its delay is over: %q", got)
		}
		eventually(t, "it is there", func() bool { return len(a.texts(t, queue)) == 1 })
		eventually(t, "it has ended", func() bool { return len(a.texts(t, queue)) == 0 })

		// The same, set by the message.
		sendWith := func(p triggers.Properties) error {
			s, err := NewSender(SenderConfig{Account: a.Account, Queue: queue, Encoding: Base64})
			if err != nil {
				return err
			}
			return errors.Join(s.Send(t.Context(), &triggers.Message{Body: []byte("later"), Origin: triggers.Known(p)}), s.Flush(t.Context()))
		}
		soon := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339Nano) }
		if err := sendWith(triggers.Properties{triggers.ScheduledAt: soon(2 * time.Second), triggers.TimeToLive: "4"}); err != nil {
			t.Fatal(err)
		}
		if got := a.texts(t, queue); len(got) != 0 {
			t.Errorf("before its time: %q", got)
		}
		eventually(t, "it is there", func() bool { return len(a.texts(t, queue)) == 1 })
		eventually(t, "it has ended", func() bool { return len(a.texts(t, queue)) == 0 })
		for _, test := range []struct {
			p    triggers.Properties
			want string
		}{
			{triggers.Properties{triggers.ScheduledAt: soon(8 * 24 * time.Hour)}, "at most 7 days"},
			{triggers.Properties{triggers.ScheduledAt: soon(time.Hour), triggers.TimeToLive: "60"}, "would expire after 1m0s"},
			{triggers.Properties{triggers.TimeToLive: "x"}, "not a number of seconds"},
		} {
			if err := sendWith(test.p); !errors.Is(err, triggers.ErrProperty) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v: %v, want %q", test.p, err, test.want)
			}
		}

		// The limits.
		if err := send(t, SenderConfig{Encoding: Base64}, strings.Repeat("x", 48<<10)); err != nil {
			t.Errorf("48 KiB as base64: %v", err)
		}
		if err := send(t, SenderConfig{Encoding: Text}, strings.Repeat("x", 64<<10)); err != nil {
			t.Errorf("64 KiB as a text: %v", err)
		}
		if err := send(t, SenderConfig{Encoding: Text}, strings.Repeat("<", 64<<10)); err != nil {
			t.Errorf("64 KiB that XML writes as more: %v", err)
		}
		for _, test := range []struct {
			encoding Encoding
			body     string
			is       error
			want     string
		}{
			{Base64, strings.Repeat("x", 48<<10+1), triggers.ErrTooLarge, "65540 bytes as base64; 65536 is the most, which is 48 KiB before base64"},
			{Text, strings.Repeat("x", 64<<10+1), triggers.ErrTooLarge, "65537 bytes as text"},
			{Text, "a\x00b", triggers.ErrEncoding, "byte 1 is not a character of text; set encoding: base64"},
			{Text, "\xff", triggers.ErrEncoding, "byte 0"},
		} {
			err := send(t, SenderConfig{Encoding: test.encoding}, test.body)
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		}
		for _, test := range []struct {
			delay, ttl time.Duration
			want       string
		}{
			{time.Minute, time.Second, "the delay (1m0s) must be less than the time to live (1s)"},
			{8 * 24 * time.Hour, 0, "limit of 7 days"},
		} {
			if err := send(t, SenderConfig{Encoding: Base64, Delay: test.delay, TimeToLive: test.ttl}, "x"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		}
	})
}

// A message from an output wakes the trigger of the same queue.
func TestASendingWakesTheTrigger(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	tr := a.rested(t, queue, time.Millisecond)
	got := make(chan error, 1)
	go func() {
		ds, err := tr.Receive(t.Context(), 1)
		for _, d := range ds {
			err = errors.Join(err, d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Done}))
		}
		got <- err
	}()
	eventually(t, "the trigger rests", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return time.Until(tr.nextGet) > time.Minute
	})
	s, err := NewSender(SenderConfig{Account: a.Account, Queue: queue, Encoding: Base64})
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if err := errors.Join(s.Send(t.Context(), &triggers.Message{Body: []byte("wake up")}), s.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(before); took > 50*time.Second { // it rests for a minute at least
		t.Errorf("it came after %v", took)
	}
}
