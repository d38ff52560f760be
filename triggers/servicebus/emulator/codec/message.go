package codec

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// The sections of a message, by their descriptors (OASIS AMQP 1.0, part 3.2).
const (
	sectionHeader      = 0x70
	sectionDelivery    = 0x71
	sectionAnnotations = 0x72
	sectionProperties  = 0x73
	sectionApplication = 0x74
	sectionFooter      = 0x78
)

// The indices of the fields that the emulator reads or writes.
const (
	headerTTL           = 2 // milliseconds, uint32
	headerDeliveryCount = 4
	propertyMessageID   = 0
	propertyExpiry      = 8
	propertyCreation    = 9
	propertyGroupID     = 10
)

// The annotations and properties that the service sets or reads.
const (
	ScheduledTime = Symbol("x-opt-scheduled-enqueue-time")
	MessageState  = Symbol("x-opt-message-state")
	LockedUntil   = Symbol("x-opt-locked-until")
	LockToken     = Symbol("x-opt-lock-token")

	DeadLetterReason      = "DeadLetterReason"
	DeadLetterDescription = "DeadLetterErrorDescription"
)

// Message is a message as its sender encoded it. Sections that the service does not change are kept
// as bytes, so every AMQP type is preserved.
type Message struct {
	header      []any       // its fields, by place; nil if the section is missing
	delivery    map[any]any // the sender's delivery annotations, which the service keeps
	Annotations map[any]any
	properties  []any
	application Raw // the whole section; empty if there is none
	body        Raw // all body sections
	footer      Raw
}

// DecodeMessage decodes a message. The message refers to data.
func DecodeMessage(data []byte) (*Message, error) {
	m := &Message{Annotations: make(map[any]any)}
	d := decoder{data}
	for len(d.data) > 0 {
		before := d.data
		if err := d.skip(0); err != nil {
			return nil, err
		}
		section := before[:len(before)-len(d.data)]
		code, err := sectionCode(section)
		if err != nil {
			return nil, err
		}
		switch code {
		case sectionHeader, sectionDelivery, sectionAnnotations, sectionProperties:
			if err := m.read(code, section); err != nil {
				return nil, err
			}
		case sectionApplication:
			if _, err := applicationProperties(section); err != nil {
				return nil, err
			}
			m.application = section
		case sectionFooter:
			m.footer = section
		default:
			m.body = append(m.body, section...)
		}
	}
	return m, nil
}

// sectionCode returns a section's descriptor.
func sectionCode(section []byte) (uint64, error) {
	d := decoder{section[1:]}
	if section[0] != 0 {
		return 0, fmt.Errorf("%w: a message's section has no descriptor", errCodec)
	}
	descriptor, err := d.value(1)
	if err != nil {
		return 0, err
	}
	code, ok := descriptor.(uint64)
	if !ok {
		return 0, fmt.Errorf("%w: a message's section has a descriptor of type %T", errCodec, descriptor)
	}
	return code, nil
}

// read decodes a section whose fields the emulator knows.
func (m *Message) read(code uint64, section []byte) error {
	d := decoder{section}
	v, err := d.value(0)
	if err != nil {
		return err
	}
	content := v.(Described).Value
	var ok bool
	switch code {
	case sectionHeader:
		m.header, ok = content.([]any)
	case sectionProperties:
		m.properties, ok = content.([]any)
	case sectionDelivery:
		m.delivery, ok = content.(map[any]any)
		ok = ok || content == nil
		delete(m.delivery, LockToken) // of an earlier receiver
	default:
		if m.Annotations, ok = content.(map[any]any); content == nil {
			m.Annotations, ok = make(map[any]any), true
		}
	}
	if !ok {
		return fmt.Errorf("%w: the section 0x%x is a %T", errCodec, code, content)
	}
	return nil
}

// Encode encodes the message with additional delivery annotations.
func (m *Message) Encode(more map[any]any) []byte {
	out := make([]byte, 0, len(m.application)+len(m.body)+len(m.footer)+512)
	if m.header != nil {
		out = AppendValue(out, Described{Code: sectionHeader, Value: m.header})
	}
	if len(m.delivery)+len(more) > 0 {
		delivery := make(map[any]any, len(m.delivery)+len(more))
		maps.Copy(delivery, m.delivery)
		maps.Copy(delivery, more)
		out = AppendValue(out, Described{Code: sectionDelivery, Value: delivery})
	}
	out = AppendValue(out, Described{Code: sectionAnnotations, Value: m.Annotations})
	if m.properties != nil {
		out = AppendValue(out, Described{Code: sectionProperties, Value: m.properties})
	}
	out = append(out, m.application...)
	out = append(out, m.body...)
	return append(out, m.footer...)
}

// Clone returns a copy. Changes to it do not affect m.
func (m *Message) Clone() *Message {
	c := *m
	c.header, c.properties, c.Annotations = slices.Clone(m.header), slices.Clone(m.properties), maps.Clone(m.Annotations)
	return &c
}

// Size returns the approximate size of the message in bytes.
func (m *Message) Size() int { return len(m.application) + len(m.body) + len(m.footer) + 100 }

// ID returns the message's ID, of any type; nil if it has none.
func (m *Message) ID() any { return At(m.properties, propertyMessageID) }

// SetID sets the message's ID.
func (m *Message) SetID(id string) { m.properties = withField(m.properties, propertyMessageID, id) }

// Session returns the ID of the message's session, if it has one.
func (m *Message) Session() (string, bool) {
	id, ok := At(m.properties, propertyGroupID).(string)
	return id, ok
}

// TTL returns the time to live of a message enqueued at a time; 0: unspecified. If the header has
// no value, or too small a one, the difference of the expiry and creation times counts.
func (m *Message) TTL(enqueued time.Time) time.Duration {
	inHeader := Field[uint32](m.header, headerTTL)
	end := Field[time.Time](m.properties, propertyExpiry)
	if end.IsZero() || inHeader > 0 && inHeader < math.MaxUint32 {
		return time.Duration(inHeader) * time.Millisecond
	}
	from := Field[time.Time](m.properties, propertyCreation)
	if from.IsZero() {
		from = enqueued
	}
	return max(end.Sub(from), time.Millisecond)
}

// maxProperties is the maximum size of a message's properties, in bytes.
const maxProperties = 64 << 10

// CheckProperties returns an error if the message's application properties are too large.
func (m *Message) CheckProperties() *Condition {
	if n := len(m.application); n > maxProperties {
		return Failure(CondNotAllowed, "The properties of the message have %d bytes; the limit is %d.", n, maxProperties)
	}
	return nil
}

// Deliveries returns the delivery count in the message's header.
func (m *Message) Deliveries() uint32 { return Field[uint32](m.header, headerDeliveryCount) }

// SetDeliveries sets the delivery count in the header.
func (m *Message) SetDeliveries(n uint32) { m.header = withField(m.header, headerDeliveryCount, n) }

// withField returns fields with the one at an index set.
func withField(fields []any, place int, v any) []any {
	for len(fields) <= place {
		fields = append(fields, nil)
	}
	fields[place] = v
	return fields
}

// applicationProperties decodes a section.
func applicationProperties(section Raw) (map[any]any, error) {
	d := decoder{section}
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	content := v.(Described).Value
	properties, ok := content.(map[any]any)
	if !ok && content != nil {
		return nil, fmt.Errorf("%w: application properties are a %T", errCodec, content)
	}
	return properties, nil
}

// SetApplication sets application properties.
func (m *Message) SetApplication(values map[string]any) {
	if len(values) == 0 {
		return
	}
	properties := make(map[any]any)
	if len(m.application) > 0 {
		old, _ := applicationProperties(m.application) // checked when it came
		maps.Copy(properties, old)
	}
	for name, value := range values {
		properties[name] = value
	}
	m.application = AppendValue(nil, Described{Code: sectionApplication, Value: properties})
}
