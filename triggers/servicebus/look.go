package servicebus

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// peeks is what a Receiver shows.
type peeks interface {
	PeekMessages(ctx context.Context, n int, o *azservicebus.PeekMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
}

// look peeks at up to n messages, at least 1, from a sequence number on. An answer may be
// larger than what a link takes: then it asks for half, and half of that. size, which may
// be nil, remembers how many came through, for the next look.
func look(ctx context.Context, r peeks, from int64, n int, size *int) ([]*azservicebus.ReceivedMessage, error) {
	if n = min(n, maxPeek); size != nil && *size > 0 {
		n = min(n, *size)
	}
	for {
		seen, err := r.PeekMessages(ctx, n, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &from})
		switch {
		case !tooLarge(err):
			return seen, err
		case n == 1:
			return nil, fmt.Errorf("the message behind sequence number %d: %w", from-1, err)
		}
		if n /= 2; size != nil {
			*size = n
		}
	}
}

// tooLarge reports whether a message, or an answer with several, is larger than what a
// link takes.
func tooLarge(err error) bool {
	return err != nil && strings.Contains(err.Error(), "amqp:link:message-size-exceeded")
}

// unreadable reports whether a message came that the AMQP library cannot read.
func unreadable(err error) bool {
	return err != nil && strings.Contains(err.Error(), "amqp:internal-error") && strings.Contains(err.Error(), "not implemented")
}

// diagnoseEvery is how often it is looked why a link was lost.
const diagnoseEvery = time.Minute

// diagnose logs a message that cannot be received: it is too large for the link, or the
// library cannot read it. The SDK does not say why it lost a link. Such a message is locked
// until its lock ends, and the others are received meanwhile; after MaxDeliveryCount the
// service makes it a dead letter.
func (e *entity) diagnose(ctx context.Context, r peeks) {
	now := time.Now()
	if last := e.diagnosed.Load(); now.UnixNano()-last < int64(diagnoseEvery) || !e.diagnosed.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	from, page := int64(0), 0
	for looked := 0; looked < maxPeek; {
		seen, err := look(ctx, r, from, maxPeek, &page)
		switch {
		case tooLarge(err) || unreadable(err):
			e.t.log.Error("message cannot be received; receiving continues with the others", "path", e.path(), "after_sequence_number", from-1, "error", explain(err, listen))
			return
		case err != nil || len(seen) == 0:
			return
		}
		looked += len(seen)
		from = deref(seen[len(seen)-1].SequenceNumber) + 1
	}
}
