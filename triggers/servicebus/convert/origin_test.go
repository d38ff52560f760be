package convert

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/drover-run/drover/triggers"
)

func TestNative(t *testing.T) {
	subject, session, number, at, ttl := "new", "s1", int64(7), time.Now(), time.Duration(0)
	m := &azservicebus.ReceivedMessage{
		MessageID: "1", DeliveryCount: 2, Subject: &subject, SessionID: &session, SequenceNumber: &number, EnqueuedTime: &at, TimeToLive: &ttl,
		ApplicationProperties: map[string]any{"n": int32(1), "f": 1.5, "odd": math.NaN(), "u": uint64(9), "t": at, "b": []byte("ab"), FailuresProperty: "1 of x"},
	}
	got := (&Origin{Of: m}).Native()
	properties := map[string]any{"n": int64(1), "f": 1.5, "odd": "NaN", "u": "9", "t": at, "b": "YWI="}
	want := map[string]any{
		"MessageId": "1", "DeliveryCount": int64(2), "LockToken": "00000000-0000-0000-0000-000000000000", "State": int64(0),
		"Subject": "new", "Label": "new", "SessionId": "s1", "SequenceNumber": int64(7), "EnqueuedTime": at, "EnqueuedTimeUtc": at,
		"ExpiresAt": never, "ExpiresAtUtc": never, // as Azure reports without a time to live
		"ApplicationProperties": properties, "UserProperties": properties,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// Fields that only some messages have.
func TestNativeOfAllFields(t *testing.T) {
	at, number, ttl, reason := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), int64(9), 25*time.Hour+time.Second/2, "because"
	m := &azservicebus.ReceivedMessage{
		EnqueuedTime: &at, TimeToLive: &ttl, LockedUntil: &at, ScheduledEnqueueTime: &at, EnqueuedSequenceNumber: &number,
		State: azservicebus.MessageStateDeferred, DeadLetterReason: &reason, DeadLetterErrorDescription: &reason,
	}
	got := (&Origin{Of: m}).Native()
	for name, want := range map[string]any{
		"LockedUntil": at, "ScheduledEnqueueTimeUtc": at, "EnqueuedSequenceNumber": int64(9), "State": int64(1), "DeadLetterReason": "because",
		"DeadLetterErrorDescription": "because", "TimeToLive": "1.01:00:00.5000000", "ExpiresAtUtc": at.Add(ttl),
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

func TestPropertiesOfAMessage(t *testing.T) {
	text := func(s string) *string { return &s }
	at, number, ttl := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), int64(9), time.Hour
	m := &azservicebus.ReceivedMessage{
		MessageID: "1", DeliveryCount: 2, EnqueuedTime: &at, TimeToLive: &ttl, SequenceNumber: &number, Subject: text("s"), ContentType: text("application/json"), ReplyTo: text("answers"),
		ReplyToSessionID: text("rs"), To: text("t"), SessionID: text("ss"), PartitionKey: text("p"),
		RawAMQPMessage: &azservicebus.AMQPAnnotatedMessage{
			Properties: &azservicebus.AMQPAnnotatedMessageProperties{MessageID: "1", CorrelationID: uint64(5), ContentEncoding: text("gzip")},
			Header:     &azservicebus.AMQPAnnotatedMessageHeader{Priority: 7},
		},
	}
	got := (&Origin{Of: m}).Properties()
	want := triggers.Properties{
		"content_type": "application/json", "correlation_id": "5", "reply_to": "answers", "reply_to_session": "rs", "to": "t", "session_id": "ss",
		"partition_key": "p", "subject": "s", "delivery_count": "2", "sequence_number": "9", "expires_at": "2026-01-02T04:04:05Z", "content_encoding": "gzip", "priority": "7",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

type described struct{ Descriptor, Value any }

// The text forms are defined in docs/messages.md.
func TestTextForms(t *testing.T) {
	at := time.Date(2026, 1, 2, 15, 4, 5, 123_000_000, time.FixedZone("", 3600))
	for _, c := range []struct {
		value any
		want  string
	}{
		{"text", "text"}, {"", ""}, {true, "true"}, {int8(-7), "-7"}, {uint64(math.MaxUint64), "18446744073709551615"}, {int64(math.MinInt64), "-9223372036854775808"},
		{1.5, "1.5"}, {float32(0.1), "0.1"}, {1e21, "1e+21"}, {math.NaN(), "NaN"}, {math.Inf(1), "+Inf"}, {nil, "null"},
		{at, "2026-01-02T14:04:05.123Z"}, {amqp.UUID{15: 7}, "00000000-0000-0000-0000-000000000007"}, {[]byte("\x01\x02raw"), "AQJyYXc="}, {[]byte{}, ""},
		{amqp.Symbol("s"), "s"}, {[]any{int32(1), "two", nil, []byte("b")}, `[1,"two",null,"Yg=="]`}, {[]int32{1, 2}, "[1,2]"},
		{map[string]any{"a": int64(1), "b": []any{}}, `{"a":1,"b":[]}`}, {map[any]any{int32(1): at}, `{"1":"2026-01-02T14:04:05.123Z"}`},
		{described{amqp.Symbol("com.microsoft:timespan"), int64(937_845_000_000)}, "1.02:03:04.5000000"},
		{&described{"com.microsoft:datetime-offset", int64(ticksTo1970 + 5e6)}, "1970-01-01T00:00:00.5Z"},
		{described{"com.microsoft:uri", "http://a/"}, "http://a/"},
	} {
		if got := Text(c.value); got != c.want {
			t.Errorf("%T %v: %s, want %s", c.value, c.value, got, c.want)
		}
	}
}

// A message ID may have four types. A message without one is identified by its sequence number.
func TestIDsOfAnyType(t *testing.T) {
	number := int64(3)
	for id, want := range map[any]string{"a": "a", uint64(77): "77", amqp.UUID{15: 7}: "00000000-0000-0000-0000-000000000007", nil: "3", "": "3"} {
		m := &azservicebus.ReceivedMessage{SequenceNumber: &number, RawAMQPMessage: &azservicebus.AMQPAnnotatedMessage{Properties: &azservicebus.AMQPAnnotatedMessageProperties{MessageID: id}}}
		if s, ok := id.(string); ok {
			m.MessageID = s
		}
		if got, _ := Message(m); got.ID != want {
			t.Errorf("%v is %q, want %q", id, got.ID, want)
		}
	}
}
