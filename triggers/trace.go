package triggers

import (
	"maps"
	"slices"
)

// The attributes with the trace context: those of W3C, in their own spelling and as HTTP and NATS
// libraries write them, and the one of Azure's SDKs.
var (
	parentNames = []string{"traceparent", "Traceparent", "Diagnostic-Id"}
	stateNames  = []string{"tracestate", "Tracestate"}
)

// Trace returns the trace context that the message was sent with, in the format of W3C Trace
// Context: a traceparent and a tracestate; each is empty if there is none. Azure's SDKs send
// the traceparent as Diagnostic-Id, too. Trace validates neither.
func (m *Message) Trace() (parent, state string) {
	if len(m.Attributes) == 0 {
		return "", ""
	}
	for _, name := range parentNames {
		// A Diagnostic-Id of the old form has another format.
		if v := m.Attributes[name]; len(v) >= len("00-") && v[2] == '-' {
			parent = v
			break
		}
	}
	if parent == "" {
		return "", ""
	}
	for _, name := range stateNames {
		if v := m.Attributes[name]; v != "" {
			return parent, v
		}
	}
	return parent, ""
}

// WithTrace returns a copy of the message in another context of the same trace. It sets the
// attributes that had the old context.
func (m *Message) WithTrace(parent, state string) *Message {
	out := *m
	out.Attributes = make(map[string]string, len(m.Attributes)+2)
	for name, value := range m.Attributes {
		out.Attributes[name] = value
	}
	if m.Repeated != nil {
		out.Repeated = maps.Clone(m.Repeated)
		for _, name := range slices.Concat(parentNames, stateNames) {
			delete(out.Repeated, name)
		}
	}
	for _, name := range parentNames {
		if _, found := m.Attributes[name]; found {
			out.Attributes[name] = parent
		}
	}
	for _, name := range stateNames {
		delete(out.Attributes, name)
	}
	out.Attributes[parentNames[0]] = parent
	if delete(out.Attributes, parentNames[1]); state != "" {
		out.Attributes[stateNames[0]] = state
	}
	return &out
}
