package namespace

import (
	"errors"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
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
