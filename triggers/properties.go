package triggers

import (
	"fmt"
	"strconv"
	"time"
)

// Properties are what a message has in addition to its body and attributes, as texts under the
// names below. They are never changed. Values of other types are written as in JSON,
// without quotes: a number in decimal, a time in RFC 3339, bytes in base64, a UUID
// with dashes, null as null, lists and maps as JSON.
type Properties map[string]string

// The names of the properties. The sender sets the first group, and a function may set it on its
// output. The source sets the second group.
const (
	ContentType     = "content_type"
	CorrelationID   = "correlation_id"
	ReplyTo         = "reply_to"
	ReplyToSession  = "reply_to_session"
	To              = "to"
	PartitionKey    = "partition_key"
	ContentEncoding = "content_encoding"
	MessageID       = "message_id" // of an output; a received message has it as ID
	SessionID       = "session_id" // of an output; a received message also has it as OrderingKey
	Subject         = "subject"    // of an output; a received message has it as Subject
	// ScheduledAt is the time at which an output's message can be received, and TimeToLive the
	// number of seconds after which it expires.
	ScheduledAt = "scheduled_at"
	TimeToLive  = "time_to_live"
	// ApplicationProperties are the attributes of an output's message that are not strings: a JSON
	// object of numbers, booleans and nulls. Each is an attribute, too, for sources that have texts
	// only.
	ApplicationProperties = "application_properties"

	SequenceNumber   = "sequence_number"
	DeliveryCount    = "delivery_count" // 1 at the first delivery
	DequeueCount     = "dequeue_count"  // likewise
	ExpiresAt        = "expires_at"     // absent: never
	PopReceipt       = "pop_receipt"
	Priority         = "priority"
	DeadLetterSource = "dead_letter_source"
)

// The properties of an HTTP request.
const (
	HTTPMethod = "http_method"
	HTTPURL    = "http_url"    // the whole URL, without a key
	HTTPQuery  = "http_query"  // as it was sent, without a key
	HTTPParams = "http_params" // the parameters of the route, a JSON object of texts
	HTTPRemote = "http_remote" // the address of the client, without its port
)

// The properties of a result that is the response to an HTTP request, besides ContentType.
const (
	HTTPStatus  = "http_status"  // in decimal; by default 200, or 204 without a result
	HTTPHeaders = "http_headers" // a JSON list of [name, value] pairs
)

// Settable are the names that a sender may set, and a function on its output.
var Settable = []string{
	ContentType, CorrelationID, ReplyTo, ReplyToSession, To, PartitionKey, MessageID, SessionID, Subject, ScheduledAt, TimeToLive, ApplicationProperties,
}

// maxLife is the longest TimeToLive, a hundred years.
const maxLife = 100 * 365 * 24 * time.Hour

// ReadSchedule returns when a message can be received, and after how long it expires; zero values
// if it has no such properties. The error is an ErrProperty.
func ReadSchedule(p Properties) (at time.Time, life time.Duration, err error) {
	if text := p[ScheduledAt]; text != "" {
		if at, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return at, 0, fmt.Errorf("%w: %s is %q, which is not a time in RFC 3339, such as 2026-12-01T15:04:05Z", ErrProperty, ScheduledAt, text)
		}
	}
	if text := p[TimeToLive]; text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds > 0) {
			return at, 0, fmt.Errorf("%w: %s is %q, which is not a number of seconds greater than 0", ErrProperty, TimeToLive, text)
		}
		life = maxLife
		if seconds < maxLife.Seconds() {
			life = max(time.Duration(seconds*float64(time.Second)), 1)
		}
	}
	return at, life, nil
}

// AttributePrefix begins the name of an attribute among the properties that a function sets on
// its output.
const AttributePrefix = "attribute:"

// Origin has the source's own data about a message, in addition to its body and attributes. Its
// methods are called only on demand, from any goroutine.
type Origin interface {
	// Properties returns the known properties. The map is shared and must not be changed.
	Properties() Properties
	// Native returns the source's own fields by their names, such as PopReceipt: strings,
	// bool, int64, float64, time.Time, and maps of these; nil if it has none.
	Native() map[string]any
}

// Known is the Origin of a message without a source, for example from a file.
type Known Properties

// Properties implements Origin.
func (k Known) Properties() Properties { return Properties(k) }

// Native implements Origin.
func (Known) Native() map[string]any { return nil }

// Properties returns the properties of the message; nil if there are none.
func (m *Message) Properties() Properties {
	if m.Origin == nil {
		return nil
	}
	return m.Origin.Properties()
}

// Property returns a property. If the source has none, like NATS, it returns the attribute with
// the same meaning, by the name of its header.
func (m *Message) Property(name string) string {
	if v := m.Properties()[name]; v != "" {
		return v
	}
	for _, header := range headers[name] {
		if v := m.Attributes[header]; v != "" {
			return v
		}
	}
	return ""
}

// headers are the attributes with the same meaning as a property.
var headers = map[string][]string{
	ContentType:   {"Content-Type", "content-type"},
	CorrelationID: {"Correlation-Id", "correlation-id"},
	ReplyTo:       {"Reply-To", "reply-to"},
	MessageID:     {"Nats-Msg-Id"},
}

// Header returns the name of the header that corresponds to a property; empty if there is none.
func Header(property string) string {
	if all := headers[property]; len(all) > 0 {
		return all[0]
	}
	return ""
}

// Values returns all values of an attribute, in order.
func (m *Message) Values(name string) []string {
	if all, ok := m.Repeated[name]; ok {
		return all
	}
	if v, ok := m.Attributes[name]; ok {
		return []string{v}
	}
	return nil
}

// Number formats a property that is a number.
func Number[N int | int32 | int64 | uint32](n N) string { return strconv.FormatInt(int64(n), 10) }
