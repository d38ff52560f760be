package convert

// Properties that drover sets on rejected and replayed messages.
const (
	// RejectedProperty has the time of a rejection.
	RejectedProperty = "Drover-Rejected"
	// ReplayProperty identifies the dead letter from which a message was copied, and the replay run.
	ReplayProperty = "drover-replay"
	// IDProperty has the original's ID if the copy has another one.
	IDProperty = "drover-message-id"
)

// Added are the properties added by a rejection.
var Added = map[string]bool{
	"Drover-Error": true, "Drover-Attempts": true, "Drover-Function": true, "Drover-Traceback": true, RejectedProperty: true,
	"DeadLetterReason": true, "DeadLetterErrorDescription": true,
}

// Sent returns the properties set by a message's sender, without those of drover and the service.
func Sent(properties map[string]any) map[string]any {
	var out map[string]any
	for name, value := range properties {
		if Added[name] || IsOwn(name) {
			continue
		}
		if out == nil {
			out = make(map[string]any, len(properties))
		}
		out[name] = value
	}
	return out
}

// IsOwn reports whether drover set a property of a received message.
func IsOwn(name string) bool {
	return name == FailuresProperty || name == ReplayProperty || name == IDProperty
}

// Deref returns what p points to; the zero value if p is nil.
func Deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
