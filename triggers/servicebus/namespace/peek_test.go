package namespace

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// shelf has messages whose answers are lost if they are too large for a link.
type shelf struct {
	sizes []int // of the messages, by their sequence numbers from 1
	most  int
	asked []int
}

func (s *shelf) PeekMessages(_ context.Context, n int, o *azservicebus.PeekMessagesOptions) (out []*azservicebus.ReceivedMessage, err error) {
	s.asked = append(s.asked, n)
	size := 0
	for i := int64(1); int(i) <= len(s.sizes) && len(out) < n; i++ {
		if i < *o.FromSequenceNumber {
			continue
		}
		size += s.sizes[i-1]
		out = append(out, &azservicebus.ReceivedMessage{SequenceNumber: &i})
	}
	if size > s.most {
		return nil, errors.New("(connlost): amqp:link:message-size-exceeded: received message larger than max size of 262144")
	}
	return out, nil
}

// Messages of any size that a link accepts are peeked, a page at a time.
func TestLookAtLargeMessages(t *testing.T) {
	s := &shelf{most: 262_144}
	for range 100 {
		s.sizes = append(s.sizes, 100_000)
	}
	from, page, seen := int64(0), 0, 0
	for {
		got, err := PeekPage(t.Context(), s, from, 256, &page)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			break
		}
		for _, m := range got {
			if seen++; *m.SequenceNumber != int64(seen) {
				t.Fatalf("number %d after %d messages", *m.SequenceNumber, seen-1)
			}
		}
		from = int64(seen) + 1
	}
	if seen != 100 || len(s.asked) > 110 || s.asked[0] != MaxPeek {
		t.Errorf("%d messages in %d looks, the first for %d", seen, len(s.asked), s.asked[0])
	}
}

// A connection string of the emulator without one is an error that has the command to start it.
func TestDialWithoutAnEmulator(t *testing.T) {
	_, err := (&Access{}).dial(true)(t.Context(), azservicebus.NewWebSocketConnArgs{Host: "wss://127.0.0.1:1/$servicebus/websocket"})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1: connect: connection refused; is the emulator running? To start one: drover emulate servicebus") {
		t.Error(err)
	}
}
