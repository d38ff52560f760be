package storagequeue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2/queueerror"
)

// This file has the requests. Each has a time limit, and its errors include advice.

// maxGet is the largest number of messages that one request returns.
const maxGet = 32

// MaxDelay is the longest time for which the service hides a message.
const MaxDelay = 7 * 24 * time.Hour

// seconds returns a duration as the service expects it: whole seconds, rounded up.
func seconds(d time.Duration) *int32 {
	n := int32(math.Ceil(min(max(d, 0), MaxDelay).Seconds()))
	return &n
}

// do sends a request. If the secret has changed, it repeats the request with a new client.
func (r *reach) do(what string, needs right, ask func(*azqueue.QueueClient) error) error {
	used := r.client.Load()
	err := ask(used.QueueClient)
	if queueerror.HasCode(err, queueerror.AuthenticationFailed) && r.refreshed(used) {
		err = ask(r.client.Load().QueueClient)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, r.name, explain(err, needs))
	}
	return nil
}

// once disables the retries of the SDK.
var once = policy.RetryOptions{MaxRetries: -1}

// get leases up to n messages. If the response is lost, they stay hidden for the lease, so
// the SDK does not retry.
func (r *reach) get(ctx context.Context, n int, lease time.Duration) ([]*azqueue.DequeuedMessage, error) {
	ctx = policy.WithRetryOptions(ctx, once)
	count := int32(n)
	var out []*azqueue.DequeuedMessage
	err := r.do("receiving from", process, func(c *azqueue.QueueClient) error {
		got, err := c.DequeueMessages(ctx, &azqueue.DequeueMessagesOptions{NumberOfMessages: &count, VisibilityTimeout: seconds(lease)})
		out = got.Messages
		return err
	})
	return out, err
}

// peek returns up to n messages that could be received now.
func (r *reach) peek(ctx context.Context, n int) ([]*azqueue.PeekedMessage, error) {
	count := int32(n)
	var out []*azqueue.PeekedMessage
	err := r.do("looking into", peek, func(c *azqueue.QueueClient) error {
		got, err := c.PeekMessages(ctx, &azqueue.PeekMessagesOptions{NumberOfMessages: &count})
		out = got.Messages
		return err
	})
	return out, err
}

// count returns the approximate number of messages, including hidden ones.
func (r *reach) count(ctx context.Context) (int64, error) {
	var n int64
	err := r.do("counting", peek, func(c *azqueue.QueueClient) error {
		got, err := c.GetProperties(ctx, nil)
		if err == nil && got.ApproximateMessagesCount != nil {
			n = *got.ApproximateMessagesCount
		}
		return err
	})
	return n, err
}

// hide makes a message visible after a delay, and returns its new receipt.
func (r *reach) hide(ctx context.Context, id, receipt string, d time.Duration) (string, error) {
	return r.change(ctx, id, receipt, "", d)
}

// update is hide, and replaces the text.
func (r *reach) update(ctx context.Context, id, receipt, text string, d time.Duration) (string, error) {
	return r.change(context.WithValue(ctx, newContent{}, true), id, receipt, text, d)
}

// change sends an update. The text is sent only if the context has newContent.
func (r *reach) change(ctx context.Context, id, receipt, text string, d time.Duration) (string, error) {
	var renewed string
	err := r.do("updating a message of", update, func(c *azqueue.QueueClient) error {
		got, err := c.UpdateMessage(ctx, id, receipt, text, &azqueue.UpdateMessageOptions{VisibilityTimeout: seconds(d)})
		if err == nil && got.PopReceipt == nil {
			err = errors.New("the answer has no pop receipt")
		}
		if err == nil {
			renewed = *got.PopReceipt
		}
		return err
	})
	return renewed, err
}

// remove deletes a message.
func (r *reach) remove(ctx context.Context, id, receipt string) error {
	return r.do("deleting a message of", process, func(c *azqueue.QueueClient) error {
		_, err := c.DeleteMessage(ctx, id, receipt, nil)
		return err
	})
}

// forever is the time to live of a message that does not expire.
const forever = time.Duration(0)

// put adds a message that is hidden for a delay, and expires after ttl. It returns the message's ID.
func (r *reach) put(ctx context.Context, text string, delay, ttl time.Duration) (id string, err error) {
	o := &azqueue.EnqueueMessageOptions{VisibilityTimeout: seconds(delay)}
	end := int32(-1)
	if ttl > forever {
		end = int32(min(math.Ceil(ttl.Seconds()), math.MaxInt32))
	}
	o.TimeToLive = &end
	err = r.do("sending to", add, func(c *azqueue.QueueClient) error {
		got, err := c.EnqueueMessage(ctx, text, o)
		if err == nil && len(got.Messages) > 0 {
			id = deref(got.Messages[0].MessageID)
		}
		return err
	})
	return id, err
}

// putOrCreate is put, but it creates the queue if it is missing.
func (r *reach) putOrCreate(ctx context.Context, text string, delay, ttl time.Duration) (id string, err error) {
	id, err = r.put(ctx, text, delay, ttl)
	if !queueerror.HasCode(err, queueerror.QueueNotFound) {
		return id, err
	}
	if err := r.make(ctx); err != nil {
		return "", err
	}
	return r.put(ctx, text, delay, ttl)
}

// make creates the queue if it is missing.
func (r *reach) make(ctx context.Context) error {
	err := r.do("making", create, func(c *azqueue.QueueClient) error {
		_, err := c.Create(ctx, nil)
		return err
	})
	if queueerror.HasCode(err, queueerror.QueueAlreadyExists) { // it exists, with other metadata
		return nil
	}
	return err
}
