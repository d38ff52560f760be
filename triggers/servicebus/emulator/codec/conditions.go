package codec

import "fmt"

// Condition is an AMQP error.
type Condition struct {
	Name, Text string
}

func (c *Condition) Error() string { return c.Name + ": " + c.Text }

// Failure returns an error with one of the names below.
func Failure(name, format string, args ...any) *Condition {
	return &Condition{name, fmt.Sprintf(format, args...)}
}

// Value returns the error as a value of a frame; nil for none.
func (c *Condition) Value() any {
	if c == nil {
		return nil
	}
	// The Python SDK needs the third field, info, to be written.
	return Described{Code: TypeError, Value: []any{Symbol(c.Name), c.Text, nil}}
}

// The conditions that Service Bus uses.
const (
	CondNotFound      = "amqp:not-found"
	CondUnauthorized  = "amqp:unauthorized-access"
	CondNotAllowed    = "amqp:not-allowed"
	CondNotImpl       = "amqp:not-implemented"
	CondDecode        = "amqp:decode-error"
	CondSize          = "amqp:link:message-size-exceeded"
	CondDetachForced  = "amqp:link:detach-forced"
	CondTimeout       = "com.microsoft:timeout"
	CondBusy          = "com.microsoft:server-busy"
	CondDisabled      = "com.microsoft:entity-disabled"
	CondArgument      = "com.microsoft:argument-error"
	CondDeadLetter    = "com.microsoft:dead-letter"
	CondMessageLost   = "com.microsoft:message-lock-lost"
	CondSessionLost   = "com.microsoft:session-lock-lost"
	CondSessionLocked = "com.microsoft:session-cannot-be-locked"
	CondNoMessage     = "com.microsoft:message-not-found"
)
