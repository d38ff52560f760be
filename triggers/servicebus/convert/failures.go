package convert

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// FailuresProperty has the number of failures of a message, and the identity of that message,
// as in "2 of 17.1767225600000". People and tools resend messages with all of their
// properties; that is another message, which starts at attempt 1.
const FailuresProperty = "drover-failures"

const (
	// early and late bound the enqueue time of a scheduled copy, before its creation and after its
	// scheduled time. They apply if the service does not report the scheduled time.
	late  = 10 * time.Minute
	early = time.Minute
)

// Identity identifies a message within its entity: its number and enqueue time.
func Identity(m *azservicebus.ReceivedMessage) string {
	return fmt.Sprintf("%d.%d", Deref(m.SequenceNumber), Deref(m.EnqueuedTime).UnixMilli())
}

// FailuresHere returns the property of an abandoned message.
func FailuresHere(n int, m *azservicebus.ReceivedMessage) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %s", n, Identity(m))
}

// FailuresOfCopy returns the property of a copy that is scheduled for at. The copy's number is not
// known yet.
func FailuresOfCopy(n int, at time.Time) string {
	return fmt.Sprintf("%d at %d.%d", n, at.UnixMilli(), time.Now().UnixMilli())
}

// Failures returns the number of failures of a message; 0 if the property is of another one.
func Failures(m *azservicebus.ReceivedMessage) int {
	property, _ := m.ApplicationProperties[FailuresProperty].(string)
	count, rest, _ := strings.Cut(property, " ")
	kind, mark, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || kind == "of" && mark != Identity(m) || kind == "at" && !isCopyAt(m, mark) || kind != "of" && kind != "at" {
		return 0
	}
	return n
}

// isCopyAt reports whether a message is the scheduled copy that the mark identifies.
func isCopyAt(m *azservicebus.ReceivedMessage, mark string) bool {
	due, made, _ := strings.Cut(mark, ".")
	at, err := strconv.ParseInt(due, 10, 64)
	from, wrong := strconv.ParseInt(made, 10, 64)
	switch {
	case err != nil || wrong != nil:
		return false
	case m.ScheduledEnqueueTime != nil:
		return m.ScheduledEnqueueTime.UnixMilli() == at
	}
	enqueued := Deref(m.EnqueuedTime)
	return !enqueued.Before(time.UnixMilli(from).Add(-early)) && !enqueued.After(time.UnixMilli(at).Add(late))
}
