package namespace

import (
	"context"
	"errors"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// AfterFirst limits how long a receive call waits for more messages after its first one: the time
// within which n available messages arrive.
func AfterFirst(n int) *azservicebus.ReceiveMessagesOptions {
	return &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: 5*time.Millisecond + time.Duration(n)*PerMessage}
}

// PerMessage is the longest time between two messages that were sent together.
const PerMessage = 30 * time.Microsecond

// OpenSender returns a sender whose link is open, for concurrent use. The SDK opens a link on its
// first use. If several goroutines use it first at the same time, the SDK opens one link
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
