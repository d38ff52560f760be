package servicebus

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

func scheduled(n int) (out []*azservicebus.Message) {
	for range n {
		out = append(out, &azservicebus.Message{Body: []byte("later")})
	}
	return out
}

// A retry by a copy: the message is unchanged, and the daemon holds nothing.
func TestRetryByACopy(t *testing.T) {
	b := start(t, emulator.QueueOptions{MaxDeliveryCount: 2})
	tr := b.open(t, func(c *Config) { c.Scheduled, c.MaxAttempts = true, 5 })
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	sent := &azservicebus.Message{
		Body: []byte("again"), MessageID: to.Ptr("id-1"), Subject: to.Ptr("subject"), CorrelationID: to.Ptr("cause"), ContentType: to.Ptr("text/plain"),
		ApplicationProperties: map[string]any{"n": int64(7)}, TimeToLive: to.Ptr(time.Hour), ReplyTo: to.Ptr("replies"),
	}
	if err := s.SendMessage(t.Context(), sent, nil); err != nil {
		t.Fatal(err)
	}
	const delay = 300 * time.Millisecond
	for attempt := 1; attempt <= 4; attempt++ {
		d := receive(t, tr, 1)[0]
		m := d.Message
		if m.Attempt != attempt || m.ID != "id-1" || m.Subject != "subject" || m.Attributes["n"] != "7" || len(m.Attributes) != 1 || string(m.Body) != "again" {
			t.Errorf("attempt %d: %+v", attempt, m)
		}
		r := tr.leaseOf(d).received
		if *r.CorrelationID != "cause" || *r.ContentType != "text/plain" || *r.ReplyTo != "replies" || r.TimeToLive == nil || *r.TimeToLive > time.Hour || *r.TimeToLive < 50*time.Minute {
			t.Errorf("attempt %d: %+v", attempt, r)
		}
		if attempt == 4 {
			settle(t, d, triggers.Done)
			break
		}
		began := time.Now()
		if err := d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: delay}); err != nil {
			t.Fatal(err)
		}
		b.wantCounts(t, emulator.Counts{Scheduled: 1})
		if attempt == 2 { // a restart keeps everything
			if err := tr.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			tr = b.open(t, func(c *Config) { c.Scheduled = true })
		}
		next := receive(t, tr, 1)[0]
		if took := time.Since(began); took < delay-50*time.Millisecond {
			t.Errorf("it came after %v", took)
		}
		settle(t, next, triggers.Release) // not an attempt
	}
	b.wantEmpty(t)
}

// leaseOf returns the lease of a delivery.
func (t *trigger) leaseOf(d *triggers.Delivery) *leasedMessage {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.keeper.All() {
		if &l.Delivery == d {
			return l
		}
	}
	return nil
}

// The copy of a message without a time to live has none, either. It used to have 1 ms, and was lost
// unless a receiver was waiting for it.
func TestACopyLivesAsLongAsItsMessage(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, func(c *Config) { c.Scheduled = true })
	b.send(t, text("precious")...)
	d := receive(t, tr, 1)[0]
	if err := tr.leaseOf(d).retryByCopy(t.Context(), d.Message, 0); err != nil {
		t.Fatal(err)
	}
	copied := receive(t, tr, 1)[0]
	if r := tr.leaseOf(copied).received; convert.Deref(r.TimeToLive) != 0 || copied.Message.Attempt != 2 {
		t.Errorf("the copy lives %v; attempt %d", convert.Deref(r.TimeToLive), copied.Message.Attempt)
	}
	settle(t, copied, triggers.Done)
	b.wantEmpty(t)
}

// full is a message with everything that AMQP supports.
func full() *azservicebus.AMQPAnnotatedMessage {
	text := func(s string) *string { return &s }
	return &azservicebus.AMQPAnnotatedMessage{
		Body:                  azservicebus.AMQPAnnotatedMessageBody{Value: "a text"},
		ApplicationProperties: map[string]any{"n": int32(7), "b": []byte("ab"), "id": amqp.UUID{1}, "when": time.UnixMilli(1_767_225_600_123).UTC(), "none": nil, "u": uint8(3)},
		MessageAnnotations:    map[any]any{"mine": int64(5), "x-opt-partition-key": "p"},
		Footer:                map[any]any{"foot": "er"},
		Header:                &azservicebus.AMQPAnnotatedMessageHeader{Priority: 7, Durable: true},
		Properties: &azservicebus.AMQPAnnotatedMessageProperties{
			MessageID: uint64(77), CorrelationID: amqp.UUID{2}, ContentType: text("text/plain"), ContentEncoding: text("gzip"), ReplyTo: text("r"), ReplyToGroupID: text("rg"),
			Subject: text("s"), To: text("t"), UserID: []byte("u"),
		},
	}
}

// wantFull compares a copy with a full message.
func wantFull(t *testing.T, got *azservicebus.AMQPAnnotatedMessage) {
	t.Helper()
	want := full()
	properties := *got.Properties
	properties.CreationTime, properties.AbsoluteExpiryTime = nil, nil
	if !reflect.DeepEqual(&properties, want.Properties) {
		t.Errorf("properties %+v, want %+v", properties, *want.Properties)
	}
	of := convert.Sent(got.ApplicationProperties)
	if when, ok := of["when"].(time.Time); ok {
		of["when"] = when.UTC() // as DeepEqual sees it
	}
	if !reflect.DeepEqual(of, want.ApplicationProperties) {
		t.Errorf("application properties %v, want %v", got.ApplicationProperties, want.ApplicationProperties)
	}
	if !reflect.DeepEqual(convert.OfSender(got.MessageAnnotations), want.MessageAnnotations) || !reflect.DeepEqual(got.Footer, want.Footer) {
		t.Errorf("annotations %v and footer %v, want %v and %v", got.MessageAnnotations, got.Footer, want.MessageAnnotations, want.Footer)
	}
	if got.Header.Priority != 7 || got.Body.Value != "a text" || len(got.Body.Data)+len(got.Body.Sequence) > 0 {
		t.Errorf("header %+v, body %+v", got.Header, got.Body)
	}
}

// A copy for a retry is complete, with the same types.
func TestACopyHasAllOfItsMessage(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, func(c *Config) { c.Scheduled = true })
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendAMQPAnnotatedMessage(t.Context(), full(), nil); err != nil {
		t.Fatal(err)
	}
	for attempt := 1; attempt <= 2; attempt++ {
		d := receive(t, tr, 1)[0]
		if m := d.Message; m.Attempt != attempt || m.ID != "77" || m.Properties()[triggers.CorrelationID] != "02000000-0000-0000-0000-000000000000" || m.Attributes["b"] != "YWI=" {
			t.Errorf("attempt %d: %+v, %v", attempt, m, m.Properties())
		}
		wantFull(t, tr.leaseOf(d).received.RawAMQPMessage)
		if attempt == 2 {
			settle(t, d, triggers.Done)
		} else if err := d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: 100 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	b.wantEmpty(t)
}

// A time to live that is too long for the header is the difference of two times.
func TestTimesToLive(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	received := func(header time.Duration, lives time.Duration) *azservicebus.ReceivedMessage {
		p := new(azservicebus.AMQPAnnotatedMessageProperties)
		if lives > 0 {
			made, end := at.Add(-time.Second), at.Add(lives-time.Second)
			p.CreationTime, p.AbsoluteExpiryTime = &made, &end
		}
		return &azservicebus.ReceivedMessage{EnqueuedTime: &at, TimeToLive: &header, RawAMQPMessage: &azservicebus.AMQPAnnotatedMessage{Properties: p}}
	}
	const day = 24 * time.Hour
	for _, c := range []struct{ header, lives, want time.Duration }{
		{0, 0, 0}, {time.Minute, 0, time.Minute}, {convert.MaxHeaderTTL, 0, convert.MaxHeaderTTL}, {convert.MaxHeaderTTL, 100 * day, 100 * day}, {0, 100 * day, 100 * day}, {time.Hour, time.Hour, time.Hour},
	} {
		m := received(c.header, c.lives)
		if got := convert.TTL(m); got != c.want {
			t.Errorf("%+v lives %v", c, got)
		}
		if c.want == 0 != convert.Expiry(m).IsZero() || c.want > 0 && !convert.Expiry(m).Equal(at.Add(c.want)) {
			t.Errorf("%+v expires at %v", c, convert.Expiry(m))
		}
		out := convert.Copy(m)
		again := &azservicebus.ReceivedMessage{TimeToLive: &out.Header.TTL, RawAMQPMessage: out}
		if got := convert.TTL(again); got != c.want || out.Header.TTL > convert.MaxHeaderTTL {
			t.Errorf("a copy of %+v lives %v, by its header %v", c, got, out.Header.TTL)
		}
	}
	// A retry keeps the end of the message, not the time.
	now := time.Now().UTC().Truncate(time.Millisecond)
	m := received(convert.MaxHeaderTTL, 100*day)
	m.EnqueuedTime = &now
	out := convert.CopyForRetry(m, 1, now.Add(10*day))
	if got := convert.TTL(&azservicebus.ReceivedMessage{TimeToLive: &out.Header.TTL, RawAMQPMessage: out}); got != 90*day {
		t.Errorf("it lives %v", got)
	}
}

// A message that expires before its retry is due is held, and this is logged.
func TestARetryBehindTheEnd(t *testing.T) {
	for _, scheduled := range []bool{false, true} {
		b := start(t, emulator.QueueOptions{DeadLetterExpired: true})
		var log syncBuffer
		tr := b.open(t, func(c *Config) { c.Scheduled, c.Log = scheduled, slog.New(slog.NewTextHandler(&log, nil)) })
		s, err := b.client(t).NewSender("orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SendMessage(t.Context(), &azservicebus.Message{Body: []byte("short"), TimeToLive: to.Ptr(time.Hour)}, nil); err != nil {
			t.Fatal(err)
		}
		d := receive(t, tr, 1)[0]
		if err := d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: 2 * time.Hour}); err != nil {
			t.Fatal(err)
		}
		b.wantCounts(t, emulator.Counts{Locked: 1})
		if !strings.Contains(log.String(), "message expires before its retry is due") {
			t.Errorf("the log: %s", log.String())
		}
	}
}

// A message is held until its retry if a copy of it would be too large.
func TestARetryWithoutRoomForACopy(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	b := startWith(t, emulator.Options{MaxMessageSize: limit}, emulator.QueueOptions{})
	var log syncBuffer
	tr := b.open(t, func(c *Config) { c.Scheduled, c.Log = true, slog.New(slog.NewTextHandler(&log, nil)) })
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	size := limit
	for err = azservicebus.ErrMessageTooLarge; errors.Is(err, azservicebus.ErrMessageTooLarge); size-- {
		err = s.SendMessage(t.Context(), &azservicebus.Message{Body: make([]byte, size)}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := receive(t, tr, 1)[0].Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	d := receive(t, tr, 1)[0]
	if d.Message.Attempt != 2 || len(d.Message.Body) <= size || !strings.Contains(log.String(), "a copy of the message would be too large") {
		t.Errorf("attempt %d of %d bytes; the log: %s", d.Message.Attempt, len(d.Message.Body), log.String())
	}
	settle(t, d, triggers.Done)
	b.wantCounts(t, emulator.Counts{})
}

// syncBuffer is a buffer for concurrent writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A count of failures belongs to one message: a count from a sender is ignored, and a message that
// somebody sends again with all properties starts at attempt 1.
func TestWhoseFailures(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, nil)
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, property := range []any{int64(99), "99", "99 of 1.2", "99 at 1.2", "abc", fmt.Sprintf("99 at %d.%d", time.Now().Add(-time.Hour).UnixMilli(), time.Now().Add(-2*time.Hour).UnixMilli())} {
		if err := s.SendMessage(t.Context(), &azservicebus.Message{ApplicationProperties: map[string]any{convert.FailuresProperty: property}}, nil); err != nil {
			t.Fatal(err)
		}
		d := receive(t, tr, 1)[0]
		if d.Message.Attempt != 1 || len(d.Message.Attributes) > 0 {
			t.Errorf("%v: attempt %d, %v", property, d.Message.Attempt, d.Message.Attributes)
		}
		settle(t, d, triggers.Done)
	}
	b.send(t, text("again")...)
	settle(t, receive(t, tr, 1)[0], triggers.Retry)
	d := receive(t, tr, 1)[0]
	if d.Message.Attempt != 2 {
		t.Errorf("attempt %d, want 2", d.Message.Attempt)
	}
	resent := &azservicebus.Message{Body: []byte("again"), ApplicationProperties: tr.leaseOf(d).received.ApplicationProperties}
	settle(t, d, triggers.Done)
	if err := s.SendMessage(t.Context(), resent, nil); err != nil {
		t.Fatal(err)
	}
	d = receive(t, tr, 1)[0]
	if d.Message.Attempt != 1 {
		t.Errorf("one that was sent again: attempt %d, want 1", d.Message.Attempt)
	}
	settle(t, d, triggers.Done)
	// If the service does not report the time of a copy, its enqueue time decides.
	at := time.Now().Truncate(time.Millisecond)
	for enqueued, want := range map[time.Time]int{at: 3, at.Add(time.Minute): 3, at.Add(-30 * time.Second): 3, at.Add(time.Hour): 0} {
		m := &azservicebus.ReceivedMessage{EnqueuedTime: &enqueued, ApplicationProperties: map[string]any{convert.FailuresProperty: convert.FailuresOfCopy(3, at)}}
		if got := convert.Failures(m); got != want {
			t.Errorf("enqueued %v: %d failures, want %d", enqueued.Sub(at), got, want)
		}
	}
}
