package dispatch

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// callResult is the result of a call, with its messages to named outputs.
type callResult struct {
	output           []byte
	outputProperties triggers.Properties
	err              error
	named            *namedMessages // nil: none
	returned         bool           // the call has returned
}

// NamedMessage is a message that a function sends to a named output.
type NamedMessage struct {
	Output     string
	Body       []byte
	Properties triggers.Properties // nil if there are none
}

// namedMessages are the messages of one attempt, in the order in which the function sent them.
type namedMessages struct{ messages []NamedMessage }

// errReturned is the error of a message that is sent after the call.
var errReturned = errors.New("handlers.Send was called after the function had returned; nothing is sent")

func (r *callResult) addNamed(m NamedMessage) error {
	if r.returned {
		return errReturned
	}
	if r.named == nil {
		r.named = new(namedMessages)
	}
	r.named.messages = append(r.named.messages, m)
	return nil
}

// listNamed returns the messages for named outputs; nil if there are none.
func (r *callResult) listNamed() []NamedMessage {
	if r.named == nil {
		return nil
	}
	return r.named.messages
}

// outgoing is one message to send.
type outgoing struct {
	body  []byte
	about triggers.Properties
}

// hasMessagesFor reports whether there is anything for an output with a key: the plain result if the
// key is empty, else messages for its name.
func (r *callResult) hasMessagesFor(key string) bool {
	if key == "" {
		return r.output != nil
	}
	return slices.ContainsFunc(r.listNamed(), func(m NamedMessage) bool { return m.Output == key })
}

// appendMessages appends the messages for the output with a key, in order.
func (r *callResult) appendMessages(to []outgoing, key string) []outgoing {
	if key == "" {
		return append(to, outgoing{r.output, r.outputProperties})
	}
	for _, m := range r.listNamed() {
		if m.Output == key {
			to = append(to, outgoing{m.Body, m.Properties})
		}
	}
	return to
}

// checkOutputName returns an error unless an output is one of the names of a function.
func checkOutputName(output string, names []string) error {
	switch {
	case slices.Contains(names, output):
		return nil
	case len(names) == 0:
		return handlers.Reject(fmt.Errorf("it sends to the output %q, and the function has no named outputs; give one this name in the configuration", output))
	}
	return handlers.Reject(fmt.Errorf("the function has no output %q; it has: %s", output, strings.Join(names, ", ")))
}
