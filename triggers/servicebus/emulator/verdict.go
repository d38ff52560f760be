package emulator

import (
	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// verdictOf parses the outcome of a disposition, and its AMQP type.
func verdictOf(fields []any) (v broker.Verdict, outcome uint64) {
	outcome, values := codec.Composite(codec.At(fields, 4))
	v.Kind = broker.Released
	switch outcome {
	case codec.TypeAccepted:
		v.Kind = broker.Completed
	case codec.TypeModified:
		v.Kind, v.Properties = broker.Abandoned, properties(codec.Field[map[any]any](values, 2))
		if codec.Field[bool](values, 1) {
			v.Kind = broker.Deferred
		}
	case codec.TypeRejected:
		v.Kind = broker.DeadLettered
		if _, cond := codec.Composite(codec.At(values, 0)); len(cond) > 0 {
			v.Properties = properties(codec.Field[map[any]any](cond, 2))
			v.Description = codec.Field[string](cond, 1)
			if name := codec.Field[codec.Symbol](cond, 0); name != codec.CondDeadLetter {
				v.Reason = string(name)
			}
			for key, to := range map[string]*string{codec.DeadLetterReason: &v.Reason, codec.DeadLetterDescription: &v.Description} {
				text, isText := v.Properties[key].(string)
				if isText {
					*to = text
				}
				if isText || v.Properties[key] == nil {
					delete(v.Properties, key)
				}
			}
		}
	default:
		outcome = codec.TypeReleased
	}
	return v, outcome
}

// properties returns a map from a frame as application properties.
func properties(m map[any]any) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		name, ok := k.(string)
		if s, is := k.(codec.Symbol); is {
			name, ok = string(s), true
		}
		switch v.(type) {
		case codec.Described, []any, map[any]any:
			ok = false // no application property
		}
		if ok {
			out[name] = v
		}
	}
	return out
}
