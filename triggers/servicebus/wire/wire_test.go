package wire

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

// A stream is the bytes that a server sends.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func frame(channel uint16, performative string, payload []byte) []byte {
	f := binary.BigEndian.AppendUint32(nil, uint32(8+len(performative)+len(payload)))
	f = append(f, 2, 0)
	f = binary.BigEndian.AppendUint16(f, channel)
	return append(append(f, performative...), payload...)
}

// transferOf is a transfer over the link with a handle.
func transferOf(handle byte, more bool, payload []byte) []byte {
	flag := byte(0x42)
	if more {
		flag = 0x41
	}
	return frame(1, string([]byte{0x00, 0x53, 0x14, 0xc0, 10, 6, 0x52, handle, 0x43, 0xa0, 1, 7, 0x43, 0x42, flag}), payload)
}

func encoded(t *testing.T, m *amqp.Message) []byte {
	t.Helper()
	out, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The same messages are read, regardless of how a stream is cut into frames and reads.
func TestWire(t *testing.T) {
	bad := encoded(t, &amqp.Message{
		Annotations:           amqp.Annotations{"x-opt-partition-key": int64(1), "kept": "x"},
		ApplicationProperties: map[string]any{"DeadLetterReason": int32(5), "large": strings.Repeat("z", 300)},
		Data:                  [][]byte{bytes.Repeat([]byte("\xa1\x10DeadLetterReason\x71\x00\x00\x00\x05"), 50)},
	})
	good := encoded(t, &amqp.Message{ApplicationProperties: map[string]any{"DeadLetterReason": "fine"}, Data: [][]byte{[]byte("good")}})
	renamed := bytes.Replace(bytes.Replace(bad, []byte("DeadLetterReason"), []byte("\x00eadLetterReason"), 1), []byte("x-opt-"), []byte("\x00-opt-"), 1)
	attach := frame(1, "\x00\x53\x12\x45", nil)

	for cut := 1; cut < len(bad); cut += 7 {
		build := func(bad []byte) (in []byte) {
			in = append(in, "AMQP\x03\x01\x00\x00AMQP\x00\x01\x00\x00"...)
			in = append(in, attach...)
			in = append(in, frame(0, "", nil)...)
			in = append(in, transferOf(1, false, bad)...)
			in = append(in, transferOf(1, true, bad[:cut])...)
			in = append(in, transferOf(2, false, good)...) // of another link, between
			in = append(in, transferOf(1, true, bad[cut:cut+(len(bad)-cut)/2])...)
			in = append(in, transferOf(1, false, bad[cut+(len(bad)-cut)/2:])...)
			in = append(in, transferOf(1, false, bad)...)
			in = append(in, transferOf(1, true, good[:5])...)
			return append(in, frame(1, "\x00\x53\x16\x45", nil)...) // detach: the rest never comes
		}
		for name, from := range map[string]io.Reader{
			"at once": bytes.NewReader(build(bad)), "byte by byte": iotest.OneByteReader(bytes.NewReader(build(bad))), "by half": iotest.HalfReader(bytes.NewReader(build(bad))),
		} {
			got, err := io.ReadAll(&conn{Conn: stream{Reader: from}})
			if err != nil || !bytes.Equal(got, build(renamed)) {
				t.Fatalf("%s, cut at %d: %v, and other bytes came out", name, cut, err)
			}
		}
	}
	noise := append(append([]byte{}, attach...), bytes.Repeat([]byte{0, 0, 0, 1}, 9)...)
	if got, err := io.ReadAll(&conn{Conn: stream{Reader: bytes.NewReader(noise)}}); err != nil || !bytes.Equal(got, noise) {
		t.Errorf("noise: %v, %x", err, got)
	}
}

// The service's limit is removed only from its attach as a sender.
func TestLiftLimit(t *testing.T) {
	attach := func(role byte, limit string) []byte {
		return []byte("\xc0" + string(rune(13+len(limit))) + "\x0b\xa1\x01n\x43" + string([]byte{role}) + "\x40\x40\x40\x40\x40\x40\x40" + limit)
	}
	const ulong, none = "\x80\x00\x00\x00\x00\x00\x04\x00\x00", "\x80\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		role         byte
		limit, after string
	}{{0x42, ulong, none}, {0x42, "\x53\xff", "\x53\x00"}, {0x42, "\x44", "\x44"}, {0x42, "\x40", "\x40"}, {0x41, ulong, ulong}} {
		b := attach(c.role, c.limit)
		if liftLimit(b, 0); !bytes.Equal(b, attach(c.role, c.after)) {
			t.Errorf("role %x, limit %x: %x", c.role, c.limit, b)
		}
	}
	liftLimit([]byte("\xc0\x05\x0b\xa1"), 0) // it ends early
}

// A body that is nested too deeply for a stack, and one that is truncated.
func TestAMessageThatIsNestedDeeply(t *testing.T) {
	deep := append([]byte{0x00, 0x53, 0x77}, make([]byte, 1<<20)...)
	deep = append(deep, bytes.Repeat([]byte{0x40}, 1<<20+1)...)
	short := append([]byte{0x00, 0x53, 0x77, 0xb0, 0, 0, 4, 0}, make([]byte, 100)...)
	for name, b := range map[string][]byte{"deep": deep, "short": short} {
		id := encoded(t, &amqp.Message{Properties: &amqp.MessageProperties{MessageID: "m"}})
		b = append(id, b...)
		if !repair(b, true) {
			t.Fatalf("%s: it was not repaired", name)
		}
		var m amqp.Message
		if err := m.UnmarshalBinary(b); err != nil || m.Properties.MessageID != "m" {
			t.Fatalf("%s: %v", name, err)
		}
		r := &azservicebus.ReceivedMessage{RawAMQPMessage: &azservicebus.AMQPAnnotatedMessage{Body: azservicebus.AMQPAnnotatedMessageBody{Sequence: m.Sequence}}}
		if misfit := Unfit(r); misfit != "the message is malformed, or nested too deeply" {
			t.Errorf("%s: the reason is %q", name, misfit)
		}
	}
}

// No input makes the decoder panic, and a message that is only read stays unchanged.
func FuzzRepair(f *testing.F) {
	whole, err := (&amqp.Message{
		Header: &amqp.MessageHeader{}, Annotations: amqp.Annotations{"x-opt-partition-key": int64(1), "n": []any{int8(1), map[any]any{"a": 1.5}}},
		ApplicationProperties: map[string]any{"DeadLetterReason": int64(5), "u": amqp.UUID{1}}, Value: []any{[]string{"a"}, "messages"},
	}).MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte("\x00\x53\x77\xe0\x12\x01\x94\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"))
	f.Add([]byte("\x00\x53\x77\xd1\x00\x00\x00\x04\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, whole := range []bool{false, true} {
			in := bytes.Clone(b)
			changed := repair(in, whole)
			if changed == bytes.Equal(in, b) && changed {
				t.Errorf("changed: %v, and it is the same", changed)
			}
			if !changed && !bytes.Equal(in, b) {
				t.Error("it was changed without notice")
			}
		}
		hasData(b)
		_, _ = readTransfer(b, 0)
		_, _ = io.ReadAll(&conn{Conn: stream{Reader: bytes.NewReader(b)}})
		_, _ = io.ReadAll(&conn{Conn: stream{Reader: bytes.NewReader(append(transferOf(1, true, b), transferOf(1, false, b)...))}})
	})
}
