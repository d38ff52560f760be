package storagequeue

import (
	"reflect"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
)

func TestProperties(t *testing.T) {
	text, id, receipt, count := "aGk=", "7", "r1", int64(1)
	now := time.Now()
	in, out := now.Add(-time.Minute), now.Add(time.Hour)
	tr := &shared{cfg: Config{Encoding: Base64, Lease: 30 * time.Second}, queue: &reach{}}
	l := tr.newLeasedMessage(&azqueue.DequeuedMessage{MessageText: &text, MessageID: &id, PopReceipt: &receipt, DequeueCount: &count, InsertionTime: &in, ExpirationTime: &out}, now)
	want := map[string]any{"Id": "7", "DequeueCount": int64(1), "PopReceipt": "r1", "InsertionTime": in, "ExpirationTime": out, "NextVisibleTime": now.Add(30 * time.Second)}
	if got := l.message.Origin.Native(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
