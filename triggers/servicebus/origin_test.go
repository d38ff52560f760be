package servicebus

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

func TestProperties(t *testing.T) {
	subject, session, number, at := "new", "s1", int64(7), time.Now()
	m := &azservicebus.ReceivedMessage{
		MessageID: "1", DeliveryCount: 2, Subject: &subject, SessionID: &session, SequenceNumber: &number, EnqueuedTime: &at,
		ApplicationProperties: map[string]any{"n": int32(1), "f": 1.5, "odd": math.NaN(), "u": uint64(9), "t": at, failuresProperty: int64(1)},
	}
	got := newLoan(&entity{}, m, at).message.Origin.Properties()
	properties := map[string]any{"n": int64(1), "f": 1.5, "odd": "NaN", "u": "9", "t": at}
	want := map[string]any{
		"MessageId": "1", "DeliveryCount": int64(2), "LockToken": "00000000-0000-0000-0000-000000000000",
		"Subject": "new", "Label": "new", "SessionId": "s1", "SequenceNumber": int64(7), "EnqueuedTime": at, "EnqueuedTimeUtc": at,
		"ApplicationProperties": properties, "UserProperties": properties,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
