package servicebus

import (
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/google/uuid"

	"github.com/drover-run/drover/triggers"
)

// messageOrigin is what Service Bus says of a message. It is read when somebody asks.
type messageOrigin struct {
	m     *azservicebus.ReceivedMessage
	once  sync.Once
	known triggers.Properties
}

// Properties implements triggers.Origin.
func (o *messageOrigin) Properties() triggers.Properties {
	o.once.Do(func() { o.known = propertiesOf(o.m) })
	return o.known
}

func propertiesOf(m *azservicebus.ReceivedMessage) triggers.Properties {
	out := triggers.Properties{triggers.DeliveryCount: triggers.Number(m.DeliveryCount)}
	for name, value := range map[string]*string{
		triggers.ContentType: m.ContentType, triggers.SessionID: m.SessionID, triggers.ReplyTo: m.ReplyTo, triggers.ReplyToSession: m.ReplyToSessionID,
		triggers.To: m.To, triggers.Subject: m.Subject, triggers.PartitionKey: m.PartitionKey, triggers.DeadLetterSource: m.DeadLetterSource,
	} {
		if value != nil {
			out[name] = *value
		}
	}
	if id := correlationOf(m); id != nil {
		out[triggers.CorrelationID] = textOf(id)
	}
	if m.SequenceNumber != nil {
		out[triggers.SequenceNumber] = triggers.Number(*m.SequenceNumber)
	}
	if at := expiryOf(m); !at.IsZero() {
		out[triggers.ExpiresAt] = textOf(at)
	}
	if raw := m.RawAMQPMessage; raw != nil && raw.Properties != nil && raw.Properties.ContentEncoding != nil {
		out[triggers.ContentEncoding] = *raw.Properties.ContentEncoding
	}
	if raw := m.RawAMQPMessage; raw != nil && raw.Header != nil && raw.Header.Priority != 0 && raw.Header.Priority != 4 { // AMQP's default
		out[triggers.Priority] = strconv.Itoa(int(raw.Header.Priority))
	}
	return out
}

// never is what Azure writes as the end of a message that has none.
var never = time.Date(9999, 12, 31, 23, 59, 59, 999_999_900, time.UTC)

// Native implements triggers.Origin, in the names of Azure Functions: some have
// two, of which the second is that of its earlier versions.
func (o *messageOrigin) Native() map[string]any {
	m := o.m
	out := map[string]any{
		"MessageId": textOf(idOf(m)), "DeliveryCount": int64(m.DeliveryCount), "LockToken": uuid.UUID(m.LockToken).String(),
	}
	for name, text := range map[string]*string{
		"ContentType": m.ContentType, "SessionId": m.SessionID, "ReplyTo": m.ReplyTo,
		"ReplyToSessionId": m.ReplyToSessionID, "To": m.To, "Subject": m.Subject, "Label": m.Subject,
		"PartitionKey": m.PartitionKey, "DeadLetterSource": m.DeadLetterSource,
	} {
		if text != nil {
			out[name] = *text
		}
	}
	if id := correlationOf(m); id != nil {
		out["CorrelationId"] = textOf(id)
	}
	if m.EnqueuedTime != nil {
		expires := expiryOf(m)
		if expires.IsZero() {
			expires = never
		}
		out["EnqueuedTime"], out["EnqueuedTimeUtc"] = *m.EnqueuedTime, *m.EnqueuedTime
		out["ExpiresAt"], out["ExpiresAtUtc"] = expires, expires
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
	return textOf(value)
}

// idOf is a message's id as its sender set it, also of a copy that has another. AMQP
// knows four types of ids: a text, a number, a UUID and bytes. A message without one has
// its sequence number.
func idOf(m *azservicebus.ReceivedMessage) any {
	if id := m.ApplicationProperties[idProperty]; id != nil && id != "" {
		return id
	}
	if raw := m.RawAMQPMessage; raw != nil && raw.Properties != nil && raw.Properties.MessageID != nil && raw.Properties.MessageID != "" {
		return raw.Properties.MessageID
	}
	if m.MessageID == "" && m.SequenceNumber != nil {
		return triggers.Number(*m.SequenceNumber)
	}
	return m.MessageID
}

// correlationOf is a correlation id of any type; nil if there is none.
func correlationOf(m *azservicebus.ReceivedMessage) any {
	if raw := m.RawAMQPMessage; raw != nil && raw.Properties != nil && raw.Properties.CorrelationID != nil {
		return raw.Properties.CorrelationID
	}
	if m.CorrelationID != nil {
		return *m.CorrelationID
	}
	return nil
}

// expiryOf is when a message expires; zero: never. A header has no room for more than
// 49.7 days: what lives longer has its times of creation and end among its properties.
func expiryOf(m *azservicebus.ReceivedMessage) time.Time {
	if ttl := ttlOf(m); ttl > 0 && m.EnqueuedTime != nil {
		return m.EnqueuedTime.Add(ttl)
	}
	if raw := m.RawAMQPMessage; raw != nil && raw.Properties != nil && raw.Properties.AbsoluteExpiryTime != nil {
		return *raw.Properties.AbsoluteExpiryTime
	}
	return time.Time{}
}

// ttlOf is how long a message lives from when it was enqueued; 0: for ever.
func ttlOf(m *azservicebus.ReceivedMessage) time.Duration {
	if raw := m.RawAMQPMessage; raw != nil && raw.Properties != nil {
		if from, to := raw.Properties.CreationTime, raw.Properties.AbsoluteExpiryTime; from != nil && to != nil && to.After(*from) {
			if ttl := to.Sub(*from); m.TimeToLive == nil || *m.TimeToLive == 0 || ttl > maxHeaderTTL {
				return ttl
			}
		}
	}
	return deref(m.TimeToLive)
}

// maxHeaderTTL is the longest time to live that the header of a message holds.
const maxHeaderTTL = math.MaxUint32 * time.Millisecond
