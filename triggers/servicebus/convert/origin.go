package convert

import (
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/google/uuid"

	"github.com/drover-run/drover/triggers"
)

// Origin implements triggers.Origin for a message. It converts the properties on request.
type Origin struct {
	Of    *azservicebus.ReceivedMessage
	once  sync.Once
	known triggers.Properties
}

// Properties implements triggers.Origin.
func (o *Origin) Properties() triggers.Properties {
	o.once.Do(func() { o.known = propertiesOf(o.Of) })
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
		out[triggers.CorrelationID] = Text(id)
	}
	if m.SequenceNumber != nil {
		out[triggers.SequenceNumber] = triggers.Number(*m.SequenceNumber)
	}
	if at := Expiry(m); !at.IsZero() {
		out[triggers.ExpiresAt] = Text(at)
	}
	if raw := m.RawAMQPMessage; raw != nil && raw.Properties != nil && raw.Properties.ContentEncoding != nil {
		out[triggers.ContentEncoding] = *raw.Properties.ContentEncoding
	}
	if raw := m.RawAMQPMessage; raw != nil && raw.Header != nil && raw.Header.Priority != 0 && raw.Header.Priority != 4 { // AMQP's default
		out[triggers.Priority] = strconv.Itoa(int(raw.Header.Priority))
	}
	return out
}

// never is the expiry time that Azure reports for messages that do not expire.
var never = time.Date(9999, 12, 31, 23, 59, 59, 999_999_900, time.UTC)

// Native implements triggers.Origin, with the names of Azure Functions. Some have two names; the
// second is from earlier versions.
func (o *Origin) Native() map[string]any {
	m := o.Of
	out := map[string]any{
		"MessageId": Text(ID(m)), "DeliveryCount": int64(m.DeliveryCount), "LockToken": uuid.UUID(m.LockToken).String(), "State": int64(m.State),
	}
	for name, text := range map[string]*string{
		"ContentType": m.ContentType, "SessionId": m.SessionID, "ReplyTo": m.ReplyTo,
		"ReplyToSessionId": m.ReplyToSessionID, "To": m.To, "Subject": m.Subject, "Label": m.Subject,
		"PartitionKey": m.PartitionKey, "DeadLetterSource": m.DeadLetterSource,
		"DeadLetterReason": m.DeadLetterReason, "DeadLetterErrorDescription": m.DeadLetterErrorDescription,
	} {
		if text != nil {
			out[name] = *text
		}
	}
	for name, at := range map[string]*time.Time{"LockedUntil": m.LockedUntil, "ScheduledEnqueueTimeUtc": m.ScheduledEnqueueTime} {
		if at != nil {
			out[name] = *at
		}
	}
	if m.EnqueuedSequenceNumber != nil {
		out["EnqueuedSequenceNumber"] = *m.EnqueuedSequenceNumber
	}
	if ttl := TTL(m); ttl > 0 {
		out["TimeToLive"] = spanText(int64(ttl / 100))
	}
	if id := correlationOf(m); id != nil {
		out["CorrelationId"] = Text(id)
	}
	if m.EnqueuedTime != nil {
		expires := Expiry(m)
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
		if !IsOwn(name) {
			properties[name] = simple(value)
		}
	}
	out["ApplicationProperties"], out["UserProperties"] = properties, properties
	return out
}

// simple converts an AMQP value to a type that any encoding supports.
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
	return Text(value)
}

// ID returns the ID that a message's sender set, even if a copy has another ID. AMQP has four types
// of IDs: string, number, UUID and bytes. A message without an ID gets its sequence number.
func ID(m *azservicebus.ReceivedMessage) any {
	if id := m.ApplicationProperties[IDProperty]; id != nil && id != "" {
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

// correlationOf returns the correlation ID, of any type; nil if there is none.
func correlationOf(m *azservicebus.ReceivedMessage) any {
	if raw := m.RawAMQPMessage; raw != nil && raw.Properties != nil && raw.Properties.CorrelationID != nil {
		return raw.Properties.CorrelationID
	}
	if m.CorrelationID != nil {
		return *m.CorrelationID
	}
	return nil
}

// Expiry returns when a message expires; zero is never. A header can represent at most 49.7 days. A
// longer time to live is stored in the creation and expiry times of the properties.
func Expiry(m *azservicebus.ReceivedMessage) time.Time {
	if ttl := TTL(m); ttl > 0 && m.EnqueuedTime != nil {
		return m.EnqueuedTime.Add(ttl)
	}
	if raw := m.RawAMQPMessage; raw != nil && raw.Properties != nil && raw.Properties.AbsoluteExpiryTime != nil {
		return *raw.Properties.AbsoluteExpiryTime
	}
	return time.Time{}
}

// TTL returns the time to live of a message, from its enqueue time; 0 is unlimited.
func TTL(m *azservicebus.ReceivedMessage) time.Duration {
	if raw := m.RawAMQPMessage; raw != nil && raw.Properties != nil {
		if from, to := raw.Properties.CreationTime, raw.Properties.AbsoluteExpiryTime; from != nil && to != nil && to.After(*from) {
			if ttl := to.Sub(*from); m.TimeToLive == nil || *m.TimeToLive == 0 || ttl > MaxHeaderTTL {
				return ttl
			}
		}
	}
	return Deref(m.TimeToLive)
}

// MaxHeaderTTL is the longest time to live in the header of a message.
const MaxHeaderTTL = math.MaxUint32 * time.Millisecond
