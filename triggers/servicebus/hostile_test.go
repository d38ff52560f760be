package servicebus

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// forger changes bytes that a sender writes, as go-amqp writes neither decimals nor chars.
type forger struct {
	net.Conn
	to *strings.Replacer
}

func (f forger) Write(p []byte) (int, error) {
	if _, err := f.Conn.Write([]byte(f.to.Replace(string(p)))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// The values that the forger changes to decimals and a char.
var (
	asDecimal128 = amqp.UUID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	asDecimal64  = uint64(0x0102_0304_0506_0708)
	asDecimal32  = uint32(0x0102_0304)
	asChar       = uint32(0x0001_f642)
)

// forge sends messages whose values of asDecimal128 and the others are of those types.
func (b *bed) forge(t testing.TB, ms ...*azservicebus.AMQPAnnotatedMessage) {
	t.Helper()
	to := strings.NewReplacer("\x98"+string(asDecimal128[:]), "\x94"+string(asDecimal128[:]),
		"\x80\x01\x02\x03\x04\x05\x06\x07\x08", "\x84\x01\x02\x03\x04\x05\x06\x07\x08", "\x70\x01\x02\x03\x04", "\x74\x01\x02\x03\x04", "\x70\x00\x01\xf6\x42", "\x73\x00\x01\xf6\x42")
	c, err := azservicebus.NewClientFromConnectionString(b.ConnectionString(b.address), &azservicebus.ClientOptions{
		NewWebSocketConn: func(ctx context.Context, _ azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", b.address)
			return forger{conn, to}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	s, err := c.NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if err := s.SendAMQPAnnotatedMessage(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// hostile are messages that the SDK cannot read, each with a part of the reason, and good ones
// between them.
func hostile(session *string) (all []*azservicebus.AMQPAnnotatedMessage, reasons, good []string) {
	add := func(reason string, properties map[string]any, annotations map[any]any, value any) {
		n := len(all) / 2
		body := azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{fmt.Appendf(nil, "good %d", n)}}
		bad := azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte("bad")}}
		if value != nil {
			bad = azservicebus.AMQPAnnotatedMessageBody{Value: value}
		}
		with := func() *azservicebus.AMQPAnnotatedMessageProperties {
			return &azservicebus.AMQPAnnotatedMessageProperties{GroupID: session, MessageID: fmt.Sprint("bad-", n)}
		}
		all = append(all, &azservicebus.AMQPAnnotatedMessage{Properties: with(), ApplicationProperties: properties, MessageAnnotations: annotations, Body: bad})
		good = append(good, string(body.Data[0]))
		all = append(all, &azservicebus.AMQPAnnotatedMessage{Properties: &azservicebus.AMQPAnnotatedMessageProperties{GroupID: session}, Body: body})
		reasons = append(reasons, reason)
	}
	add("the property DeadLetterReason is a int64", map[string]any{"DeadLetterReason": int64(5)}, nil, nil)
	add("the property DeadLetterErrorDescription is a bool", map[string]any{"DeadLetterErrorDescription": true, "a": "b"}, nil, nil)
	add("the property DeadLetterReason is a <nil>", map[string]any{"DeadLetterReason": nil}, nil, nil)
	add("the annotation x-opt-partition-key is a int64", nil, map[any]any{"x-opt-partition-key": int64(7)}, nil)
	add("the annotation x-opt-deadletter-source is a []uint8", nil, map[any]any{"x-opt-deadletter-source": []byte("x")}, nil)
	add("the property price is a decimal or a char", map[string]any{"price": asDecimal128}, nil, nil)
	add("the property price is a decimal or a char", map[string]any{"price": asDecimal64}, nil, nil)
	add("the property price is a decimal or a char", map[string]any{"price": asDecimal32}, nil, nil)
	add("the property grade is a decimal or a char", map[string]any{"grade": asChar}, nil, nil)
	add("the body has a value of the type decimal or char", nil, nil, []any{"a", map[any]any{"b": asDecimal128}})
	return all, reasons, good
}

func wantReasons(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d dead letters: %q; want %d", len(got), got, len(want))
	}
	for _, reason := range want {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, reason) }) {
			t.Errorf("no dead letter has the reason %q: %q", reason, got)
		}
	}
}

// A message that would make the SDK panic, or end its link, is dead-lettered with the reason; the
// others are handled, and none of their deliveries is wasted.
func TestMessagesThatTheSDKCannotRead(t *testing.T) {
	b := start(t, emulator.QueueOptions{MaxDeliveryCount: 2})
	all, reasons, good := hostile(nil)
	b.forge(t, all...)

	var peeked []string
	p := b.peeker(t, nil)
	for {
		ms, err := p.Peek(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(ms) == 0 {
			break
		}
		for _, m := range ms {
			peeked = append(peeked, string(m.Body))
		}
	}
	if !slices.Equal(peeked, good) {
		t.Errorf("peeked at %q, want %q", peeked, good)
	}

	tr := b.open(t, nil)
	if found, err := tr.Find(t.Context(), "bad-0"); err != nil || found.Place == "" {
		t.Errorf("found %v, %v", found, err)
	}
	var got []string
	for _, d := range receive(t, tr, len(good)) {
		if d.Message.Attempt != 1 || d.Message.Origin.Properties()[triggers.DeliveryCount] != "1" {
			t.Errorf("%s was delivered before: attempt %d", d.Message.Body, d.Message.Attempt)
		}
		got = append(got, string(d.Message.Body))
		settle(t, d, triggers.Done)
	}
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(good))) {
		t.Errorf("received %q, want %q", got, good)
	}
	b.wantCounts(t, emulator.Counts{DeadLettered: len(reasons)})

	dead := b.openDead(t, nil)
	var why []string
	var refused int
	for {
		letters, err := dead.Browse(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(letters) == 0 {
			break
		}
		for _, l := range letters {
			why = append(why, l.Reason)
			if strings.Contains(l.Reason, "decimal") {
				if err := dead.Replay(t.Context(), l, time.Time{}); err == nil || !strings.Contains(err.Error(), "would not be the same") {
					t.Errorf("replaying a decimal: %v", err)
				}
				refused++
			}
		}
	}
	wantReasons(t, why, reasons)
	if refused != 5 {
		t.Errorf("%d replays were refused, want 5", refused)
	}
	b.wantCounts(t, emulator.Counts{DeadLettered: len(reasons)})
}

func TestMessagesThatTheSDKCannotReadInASession(t *testing.T) {
	b := start(t, emulator.QueueOptions{RequiresSession: true, MaxDeliveryCount: 2})
	session := "s"
	all, reasons, good := hostile(&session)
	b.forge(t, all...)
	tr := b.open(t, func(c *Config) { c.Sessions = true })
	for _, want := range good { // in order
		d := receive(t, tr, 1)[0]
		if string(d.Message.Body) != want {
			t.Errorf("%s came, want %s", d.Message.Body, want)
		}
		settle(t, d, triggers.Done)
	}
	b.wantCounts(t, emulator.Counts{DeadLettered: len(reasons)})
}
