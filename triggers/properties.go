package triggers

import "strconv"

// Properties are what a message has beside its body and attributes, as texts by the
// names below. They are never changed. A value that is no text is written as JSON writes
// it, without quotes: a number in decimal, a time in RFC 3339, bytes in base64, a UUID
// with dashes, null as null, lists and maps as JSON.
type Properties map[string]string

// The names. The first group the sender sets, and a function may set it of its output;
// the second is the source's.
const (
	ContentType     = "content_type"
	CorrelationID   = "correlation_id"
	ReplyTo         = "reply_to"
	ReplyToSession  = "reply_to_session"
	To              = "to"
	PartitionKey    = "partition_key"
	ContentEncoding = "content_encoding"
	MessageID       = "message_id" // of an output; a message that was received has it as ID
	SessionID       = "session_id" // of an output; a message that was received has it as OrderingKey, too
	Subject         = "subject"    // of an output; a message that was received has it as Subject

	SequenceNumber   = "sequence_number"
	DeliveryCount    = "delivery_count" // 1 at the first delivery
	DequeueCount     = "dequeue_count"  // likewise
	ExpiresAt        = "expires_at"     // not there: never
	PopReceipt       = "pop_receipt"
	Priority         = "priority"
	DeadLetterSource = "dead_letter_source"
)

// Settable are the names that a sender, or a function of its output, may set.
var Settable = []string{
	ContentType, CorrelationID, ReplyTo, ReplyToSession, To, PartitionKey, MessageID, SessionID, Subject,
}

// AttributePrefix begins the name of an attribute among the properties that a function
// gives its output.
const AttributePrefix = "attribute:"

// Origin is what a source says of a message, beside its body and attributes. It is asked
// only when somebody wants to know, from any goroutine.
type Origin interface {
	// Properties are those that are known. The map is shared: nobody changes it.
	Properties() Properties
	// Native returns what the source has in its own names, such as PopReceipt: texts,
	// bool, int64, float64, time.Time, and a map of such. Nil: it has no names of its own.
	Native() map[string]any
}

// Known is the Origin of a message that comes from no source, such as a file.
type Known Properties

// Properties implements Origin.
func (k Known) Properties() Properties { return Properties(k) }

// Native implements Origin.
func (Known) Native() map[string]any { return nil }

// Properties are those of the message; nil where there are none.
func (m *Message) Properties() Properties {
	if m.Origin == nil {
		return nil
	}
	return m.Origin.Properties()
}

// Property returns one of the properties, or where the source has none, as NATS, the
// attribute that says the same, by the name of its header.
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

// headers are the attributes that say the same as a property.
var headers = map[string][]string{
	ContentType:   {"Content-Type", "content-type"},
	CorrelationID: {"Correlation-Id", "correlation-id"},
	ReplyTo:       {"Reply-To", "reply-to"},
	MessageID:     {"Nats-Msg-Id"},
}

// Header is the name of the header that says the same as a property; empty if there is none.
func Header(property string) string {
	if all := headers[property]; len(all) > 0 {
		return all[0]
	}
	return ""
}

// Values are all values of an attribute, in their order.
func (m *Message) Values(name string) []string {
	if all, ok := m.Repeated[name]; ok {
		return all
	}
	if v, ok := m.Attributes[name]; ok {
		return []string{v}
	}
	return nil
}

// Number writes a property that is a number.
func Number[N int | int32 | int64 | uint32](n N) string { return strconv.FormatInt(int64(n), 10) }
