package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// A batch, in one piece or with separate large bodies, has the size that BatchSize returns.
func TestTheSizeOfABatch(t *testing.T) {
	messages := []*triggers.Message{
		{ID: "a", Attempt: 1, Body: []byte("one")},
		{ID: "b", Subject: "s", OrderingKey: "k", Attempt: 2, Enqueued: time.UnixMicro(5), Attributes: map[string]string{"n": "v"}, Origin: triggers.Known{triggers.To: "x"}},
	}
	for _, origins := range [][][]byte{nil, {[]byte("{}"), nil}} {
		i := &Invocation{ID: 7, Function: 3, Message: messages[0], Batch: messages, Origins: origins}
		frame := AppendBatch([]byte("before"), i)[len("before"):]
		if got, want := len(frame)-4, BatchSize(messages, origins); got != want {
			t.Errorf("the frame has %d bytes, and BatchSize returns %d", got, want)
		}
		if n := binary.LittleEndian.Uint32(frame); int(n) != len(frame)-4 {
			t.Errorf("its length is %d, of %d", n, len(frame)-4)
		}
		head := AppendBatchHead(nil, i)
		for index := range messages {
			head = AppendBatched(head, i, index)
		}
		EndBatch(head, len("one"))
		if !bytes.Equal(head[:4], frame[:4]) {
			t.Errorf("without its bodies the frame has the length % x, want % x", head[:4], frame[:4])
		}
	}
}

func TestVerdicts(t *testing.T) {
	record := func(status byte, payload string) string {
		return string(append(binary.LittleEndian.AppendUint32([]byte{status}, uint32(len(payload))), payload...))
	}
	const two = "\x02\x00\x00\x00"
	good := two + record(0, "x") + record(2, `{"summary":"no"}`)
	each, whole, err := CutBatch([]byte(good))
	if err != nil || len(each) != 2 || string(each[0].Payload) != "x" || each[1].Status != Reject || whole != nil {
		t.Errorf("%+v, %+v, %v", each, whole, err)
	}
	if _, whole, err = CutBatch([]byte(good + "\x80rest")); err != nil || whole == nil || !whole.Described || string(whole.Payload) != "rest" {
		t.Errorf("%+v, %v", whole, err)
	}
	if each, _, err := CutBatch([]byte("\x00\x00\x00\x00")); err != nil || len(each) != 0 {
		t.Errorf("%+v, %v", each, err)
	}
	for name, bad := range map[string]string{
		"no count":            "\x00\x00",
		"a count":             "\xff\xff\xff\xff" + record(0, ""),
		"cut off":             two + record(0, "long enough"),
		"too long":            two + record(0, "") + "\x00\xff\x00\x00\x00",
		"a state":             two + record(5, "") + record(0, ""),
		"a batch in a batch":  two + record(6, "") + record(0, ""),
		"properties":          two + record(129, "") + record(0, ""),
		"a failure as result": good + "\x01{}",
		"a failure too long":  two + record(1, strings.Repeat("x", MaxOutcome)) + record(0, ""),
		"an unknown status":   two + record(60, "") + record(0, ""),
		"an unknown result":   good + "\x09",
	} {
		if _, _, err := CutBatch([]byte(bad)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
