package namespace

import (
	"context"
	"errors"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// AfterFirst is how long a receive call waits for more after its first message: the time in
// which n available messages arrive at the latest.
func AfterFirst(n int) *azservicebus.ReceiveMessagesOptions {
	return &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: 5*time.Millisecond + time.Duration(n)*PerMessage}
}

// PerMessage is the longest time between two messages that are sent together.
const PerMessage = 30 * time.Microsecond

// OpenSender returns a sender whose link is open, for use by many goroutines. The SDK opens
// a link at its first use: when several goroutines are first at the same time, it opens one
// for each, keeps the last, and never ends the goroutines of the others.
func OpenSender(ctx context.Context, client *azservicebus.Client, entity string) (*azservicebus.Sender, error) {
	s, err := client.NewSender(entity, nil)
	if err != nil {
		return nil, err
	}
	if _, err := s.NewMessageBatch(ctx, nil); err != nil {
		return nil, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
	}
	return s, nil
}
