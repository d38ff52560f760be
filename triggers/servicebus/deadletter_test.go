package servicebus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

// strict is a service that accepts a limited number of bytes in a dead letter's properties.
type strict struct {
	settler
	room  int
	fails error // its answer to every request
	moved []azservicebus.DeadLetterOptions
	asked int
}

func (s *strict) DeadLetterMessage(_ context.Context, _ *azservicebus.ReceivedMessage, o *azservicebus.DeadLetterOptions) error {
	s.asked++
	if s.fails != nil {
		return s.fails
	}
	size := len(*o.Reason) + len(*o.ErrorDescription)
	for name, value := range o.PropertiesToModify {
		size += len(name)
		if text, ok := value.(string); ok {
			size += len(text)
		}
	}
	if size > s.room {
		return &amqp.Error{Condition: "amqp:link:message-size-exceeded", Description: "the properties are too large"}
	}
	s.moved = append(s.moved, *o)
	return nil
}

// A dead letter that the service does not accept unchanged first loses its traceback, and then
// everything except a short reason.
func TestADeadLetterWithoutRoom(t *testing.T) {
	verdict := triggers.Verdict{Kind: triggers.Reject, Reason: "no good " + strings.Repeat("x", 3000), Detail: strings.Repeat("traceback\n", 1000), Function: "f"}
	for name, test := range map[string]struct {
		room                  int
		traceback, properties bool
		reason                int
	}{
		"all":               {60000, true, true, len(verdict.Reason)},
		"without traceback": {10000, false, true, len(verdict.Reason)},
		"the reason alone":  {300, false, false, shortReason},
	} {
		t.Run(name, func(t *testing.T) {
			s := &strict{room: test.room}
			if err := new(leasedMessage).carryOut(t.Context(), s, nil, &triggers.Message{ID: "1", Attempt: 3}, verdict); err != nil || len(s.moved) != 1 {
				t.Fatalf("%d were moved, %v", len(s.moved), err)
			}
			got := s.moved[0]
			_, traceback := got.PropertiesToModify["Drover-Traceback"]
			if traceback != test.traceback || (got.PropertiesToModify != nil) != test.properties || len(*got.Reason) != test.reason {
				t.Errorf("traceback %v, properties %v, a reason of %d bytes", traceback, got.PropertiesToModify, len(*got.Reason))
			}
		})
	}
	s := &strict{room: 10}
	var refused *amqp.Error
	if err := new(leasedMessage).carryOut(t.Context(), s, nil, &triggers.Message{ID: "1"}, verdict); !errors.As(err, &refused) {
		t.Errorf("%v; want what the service said", err)
	}
}

// Errors unrelated to the size are not retried with less data.
func TestADeadLetterThatIsNotRefused(t *testing.T) {
	for _, err := range []error{context.DeadlineExceeded, &amqp.LinkError{}, &amqp.ConnError{}, &azservicebus.Error{Code: azservicebus.CodeLockLost}} {
		s := &strict{fails: err}
		if got := new(leasedMessage).carryOut(t.Context(), s, nil, &triggers.Message{ID: "1"}, triggers.Verdict{Kind: triggers.Reject, Reason: "no"}); !errors.Is(got, err) || s.asked != 1 {
			t.Errorf("%v: %v, after %d questions", err, got, s.asked)
		}
	}
}

// The same with the emulator, which has the service's limit: if properties are refused, the message
// is still dead-lettered at once.
func TestADeadLetterThatTheServiceRefuses(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		for _, taken := range []int{50 << 10, 60 << 10, 65_000} {
			t.Run(fmt.Sprintf("sessions=%v,%d bytes", sessions, taken), func(t *testing.T) {
				b := start(t, emulator.QueueOptions{RequiresSession: sessions})
				m := triggers.Message{Body: []byte("1"), Attributes: map[string]string{"full": strings.Repeat("x", taken)}}
				if sessions {
					m.OrderingKey = "s"
				}
				b.send(t, m)
				tr := b.open(t, func(c *Config) { c.Sessions = sessions })
				d := receive(t, tr, 1)[0]
				verdict := triggers.Verdict{Kind: triggers.Reject, Reason: "no good", Detail: strings.Repeat("traceback\n", 2000), Function: "f"}
				if err := d.Settle(t.Context(), verdict); err != nil {
					t.Fatal(err)
				}
				b.wantCounts(t, emulator.Counts{DeadLettered: 1})
				if dead := b.dead(t); len(dead) != 1 || !strings.HasPrefix(dead[0].Reason, "no good") {
					t.Errorf("%+v", dead)
				}
			})
		}
	}
}
