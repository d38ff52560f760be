package namespace

import (
	"context"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// MaxPeek is the largest number of messages that one peek returns.
const MaxPeek = 250

// peeks is the peek method of a Receiver.
type peeks interface {
	PeekMessages(ctx context.Context, n int, o *azservicebus.PeekMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
}

// PeekPage peeks up to n messages, at least 1, starting at a sequence number. If the response is
// too large for a link, it halves n until one fits. size, which may be nil, stores the
// number that succeeded for the next page.
func PeekPage(ctx context.Context, r peeks, from int64, n int, size *int) ([]*azservicebus.ReceivedMessage, error) {
	if n = min(n, MaxPeek); size != nil && *size > 0 {
		n = min(n, *size)
	}
	for {
		seen, err := r.PeekMessages(ctx, n, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &from})
		switch {
		case !TooLarge(err):
			return seen, err
		case n == 1:
			return nil, fmt.Errorf("the message behind sequence number %d: %w", from-1, err)
		}
		if n /= 2; size != nil {
			*size = n
		}
	}
}

// TooLarge reports whether a message, or a response with several, exceeds the maximum size of a
// link.
func TooLarge(err error) bool {
	return err != nil && strings.Contains(err.Error(), "amqp:link:message-size-exceeded")
}
