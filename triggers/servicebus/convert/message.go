// Package convert converts messages of Azure Service Bus to messages of drover, and to copies
// that can be sent again.
package convert

import (
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/wire"
)

// Message converts a message, without Attempt and Origin. misfit is the reason why no function can
// receive it; empty if one can.
func Message(m *azservicebus.ReceivedMessage) (out triggers.Message, misfit string) {
	out.ID = Text(ID(m))
	out.Body, misfit = bodyOf(m)
	if why := wire.Unfit(m); why != "" {
		misfit = why
	}
	if m.Subject != nil {
		out.Subject = *m.Subject
	}
	if m.SessionID != nil {
		out.OrderingKey = *m.SessionID
	}
	if m.EnqueuedTime != nil {
		out.Enqueued = *m.EnqueuedTime
	}
	for name, value := range m.ApplicationProperties {
		if IsOwn(name) || misfit != "" && wire.UnfitValue("property", name, value) != "" {
			continue
		}
		if out.Attributes == nil {
			out.Attributes = make(map[string]string, len(m.ApplicationProperties))
		}
		out.Attributes[name] = Text(value)
	}
	return out, misfit
}

// bodyOf returns a message's body: its data, or its value if that is bytes or text, as sent by Java
// clients and AMQP libraries.
func bodyOf(m *azservicebus.ReceivedMessage) (body []byte, misfit string) {
	if m.RawAMQPMessage == nil {
		return m.Body, ""
	}
	switch raw := m.RawAMQPMessage.Body; {
	case len(raw.Data) == 1:
		return raw.Data[0], ""
	case len(raw.Data) > 1:
		for _, part := range raw.Data {
			body = append(body, part...)
		}
		return body, ""
	case len(raw.Sequence) > 0:
		return nil, "the body is an AMQP sequence; drover reads data, and values that are bytes or a text"
	case raw.Value != nil:
		switch v := raw.Value.(type) {
		case string:
			return []byte(v), ""
		case []byte:
			return v, ""
		}
		return nil, fmt.Sprintf("the body is an AMQP value (%T); drover reads data, and values that are bytes or a text", raw.Value)
	}
	return m.Body, ""
}
