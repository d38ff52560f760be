package convert

import (
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// Annotations with the prefix annotationPrefix belong to the service, except for partition keys.
const (
	annotationPrefix = "x-opt-"
	// ScheduledAnnotation is the time at which a message is to be enqueued.
	ScheduledAnnotation = "x-opt-scheduled-enqueue-time"
)

var partitionAnnotations = map[any]bool{"x-opt-partition-key": true, "x-opt-via-partition-key": true}

// Copy returns a message for sending again, as its sender sent it: all sections, with their values
// and types, without the service's additions, and without the creation and expiry times.
func Copy(m *azservicebus.ReceivedMessage) *azservicebus.AMQPAnnotatedMessage {
	out := &azservicebus.AMQPAnnotatedMessage{
		Body: azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{m.Body}}, ApplicationProperties: Sent(m.ApplicationProperties),
		Properties: new(azservicebus.AMQPAnnotatedMessageProperties), Header: &azservicebus.AMQPAnnotatedMessageHeader{Durable: true},
	}
	if out.ApplicationProperties == nil {
		out.ApplicationProperties = make(map[string]any)
	}
	if raw := m.RawAMQPMessage; raw != nil {
		out.Body, out.Footer = raw.Body, raw.Footer
		out.MessageAnnotations, out.DeliveryAnnotations = OfSender(raw.MessageAnnotations), OfSender(raw.DeliveryAnnotations)
		if raw.Properties != nil {
			*out.Properties = *raw.Properties
		}
		if raw.Header != nil {
			out.Header.Priority = raw.Header.Priority
		}
	}
	out.Properties.AbsoluteExpiryTime, out.Properties.CreationTime = nil, nil
	out.Properties.MessageID = ID(m)
	if ttl := TTL(m); ttl > 0 {
		SetTTL(out, ttl)
	}
	return out
}

// SetTTL sets the time to live of a copy, from its enqueue time. A time beyond MaxHeaderTTL is
// stored as the difference of the creation and expiry times, as in Azure's SDKs.
func SetTTL(out *azservicebus.AMQPAnnotatedMessage, ttl time.Duration) {
	if ttl = max(ttl, time.Millisecond); ttl <= MaxHeaderTTL {
		out.Header.TTL = ttl
		out.Properties.CreationTime, out.Properties.AbsoluteExpiryTime = nil, nil
		return
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	end := now.Add(ttl)
	out.Header.TTL, out.Properties.CreationTime, out.Properties.AbsoluteExpiryTime = MaxHeaderTTL, &now, &end
}

// OfSender returns the annotations that do not belong to the service.
func OfSender(annotations map[any]any) (out map[any]any) {
	for name, value := range annotations {
		if s, ok := name.(string); ok && strings.HasPrefix(s, annotationPrefix) && !partitionAnnotations[name] {
			continue
		}
		if out == nil {
			out = make(map[any]any, len(annotations))
		}
		out[name] = value
	}
	return out
}

// ReplayCopy returns the copy of a dead letter that a replay run sends. token is the Identity of
// the dead letter. The copy gets a new ID unless keepID is set.
func ReplayCopy(m *azservicebus.ReceivedMessage, token, run string, keepID bool) *azservicebus.AMQPAnnotatedMessage {
	out := Copy(m)
	out.ApplicationProperties[ReplayProperty] = token + "/" + run
	if !keepID {
		out.ApplicationProperties[IDProperty] = out.Properties.MessageID
		out.Properties.MessageID = "drover-replay-" + token
	}
	return out
}

// CopyForRetry returns a copy of a message as it was sent, for an attempt at the given time.
func CopyForRetry(m *azservicebus.ReceivedMessage, failures int, at time.Time) *azservicebus.AMQPAnnotatedMessage {
	out := Copy(m)
	out.ApplicationProperties[FailuresProperty] = FailuresOfCopy(failures, at)
	if out.MessageAnnotations == nil {
		out.MessageAnnotations = make(map[any]any)
	}
	out.MessageAnnotations[ScheduledAnnotation] = at
	if expires := Expiry(m); !expires.IsZero() {
		SetTTL(out, expires.Sub(at))
	}
	return out
}
