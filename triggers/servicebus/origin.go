package servicebus

import (
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
)

// Properties implements triggers.Origin, in the names of Azure Functions: some have
// two, of which the second is that of its earlier versions.
func (l *loan) Properties() map[string]any {
	m := l.received
	out := map[string]any{
		"MessageId": idOf(m), "DeliveryCount": int64(m.DeliveryCount), "LockToken": uuid.UUID(m.LockToken).String(),
	}
	for name, text := range map[string]*string{
		"ContentType": m.ContentType, "CorrelationId": m.CorrelationID, "SessionId": m.SessionID, "ReplyTo": m.ReplyTo,
		"ReplyToSessionId": m.ReplyToSessionID, "To": m.To, "Subject": m.Subject, "Label": m.Subject,
		"PartitionKey": m.PartitionKey, "DeadLetterSource": m.DeadLetterSource,
	} {
		if text != nil {
			out[name] = *text
		}
	}
	for name, at := range map[string]*time.Time{
		"EnqueuedTime": m.EnqueuedTime, "EnqueuedTimeUtc": m.EnqueuedTime, "ExpiresAt": m.ExpiresAt, "ExpiresAtUtc": m.ExpiresAt,
	} {
		if at != nil {
			out[name] = *at
		}
	}
	if m.SequenceNumber != nil {
		out["SequenceNumber"] = *m.SequenceNumber
	}
	properties := make(map[string]any, len(m.ApplicationProperties))
	for name, value := range m.ApplicationProperties {
		if !ours(name) {
			properties[name] = simple(value)
		}
	}
	out["ApplicationProperties"], out["UserProperties"] = properties, properties
	return out
}

// simple is a value of AMQP as one that any encoding knows.
func simple(value any) any {
	switch v := value.(type) {
	case string, bool, int64, time.Time:
		return v
	case int8:
		return int64(v)
	case int16:
		return int64(v)
	case int32:
		return int64(v)
	case uint8:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	case float32:
		return simple(float64(v))
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v
		}
	}
	return fmt.Sprint(value)
}
