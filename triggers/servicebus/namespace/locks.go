package namespace

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

// The shortest and the longest lock that the service offers.
const (
	ShortestLock = 5 * time.Second
	LongestLock  = 5 * time.Minute
)

// SettleLimit bounds a settlement by lock token. The SDK's own limit would be up to 50 s after a
// lost connection.
const SettleLimit = 10 * time.Second

// LockTime parses an ISO 8601 duration of the admin API, such as PT1M30S; 0 if it cannot.
func LockTime(text *string) time.Duration {
	if text == nil {
		return 0
	}
	d, err := time.ParseDuration(strings.ToLower(strings.TrimPrefix(*text, "PT")))
	if err != nil {
		return 0
	}
	return min(d, LongestLock)
}

// LockLost reports whether an error means that a lock was lost.
func LockLost(err error) bool {
	var e *azservicebus.Error
	return errors.As(err, &e) && e.Code == azservicebus.CodeLockLost
}

// AbandonLeft abandons a message that was locked over the link of a killed daemon. The lock of a message
// without a session outlives the link, and the management node of the entity accepts its token.
func AbandonLeft(ctx context.Context, r *azservicebus.Receiver, token string) error {
	var m azservicebus.ReceivedMessage
	copy(m.LockToken[:], token)
	return r.AbandonMessage(ctx, &m, nil)
}

// Refused reports whether the service refused the request itself. A lost lock, a lost
// connection and a timeout do not count.
func Refused(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var known *azservicebus.Error // a lost lock or connection, a missing right or entity
	var link *amqp.LinkError
	var session *amqp.SessionError
	var connection *amqp.ConnError
	return !errors.As(err, &known) && !errors.As(err, &link) && !errors.As(err, &session) && !errors.As(err, &connection)
}
