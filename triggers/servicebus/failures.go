package servicebus

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// failuresProperty carries how often a message has failed, and a mark of the message that
// it is about, as in "2 of 17.1767225600000". People and tools send messages again with all
// of their properties: what they send is another message, and begins at attempt 1.
const failuresProperty = "drover-failures"

const (
	// early and late are how long before and after the time that a copy is scheduled for it
	// may be enqueued, where the service does not say what time that was.
	late  = 10 * time.Minute
	early = time.Minute
)

// identityOf is what no other message of an entity has: its number and when it came.
func identityOf(m *azservicebus.ReceivedMessage) string {
	return fmt.Sprintf("%d.%d", deref(m.SequenceNumber), deref(m.EnqueuedTime).UnixMilli())
}

// failuresHere is the property of a message that stays where it is.
func failuresHere(n int, m *azservicebus.ReceivedMessage) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %s", n, identityOf(m))
}

// failuresOfCopy is the property of a copy that is scheduled for a time: its number nobody
// knows yet.
func failuresOfCopy(n int, at time.Time) string {
	return fmt.Sprintf("%d at %d.%d", n, at.UnixMilli(), time.Now().UnixMilli())
}

// failuresOf reads how often a message has failed; 0 where the property is of another.
func failuresOf(m *azservicebus.ReceivedMessage) int {
	property, _ := m.ApplicationProperties[failuresProperty].(string)
	count, rest, _ := strings.Cut(property, " ")
	kind, mark, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || kind == "of" && mark != identityOf(m) || kind == "at" && !isCopyAt(m, mark) || kind != "of" && kind != "at" {
		return 0
	}
	return n
}

// isCopyAt reports whether a message is the copy that was scheduled for a time.
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
	enqueued := deref(m.EnqueuedTime)
	return !enqueued.Before(time.UnixMilli(from).Add(-early)) && !enqueued.After(time.UnixMilli(at).Add(late))
}
