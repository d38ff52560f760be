package protocol

import (
	"encoding/binary"
	"math"

	"github.com/drover-run/drover/triggers"
)

// This file encodes the batches in an INVOKE, and decodes the verdicts on their messages in a RESULT.

// withBatch is the flag of an INVOKE with a batch: its body has the messages, and its meta is empty.
const withBatch = 4

// batchedSize is the size of a message in a batch without meta, origin and body: u32 attempt, i64
// enqueued, and the lengths of meta and body.
const batchedSize = 4 + 8 + 4 + 4

// BatchSize returns the size of an INVOKE with a batch in bytes, as max_frame counts it. origins are
// the origins of the messages; nil if they get none.
func BatchSize(messages []*triggers.Message, origins [][]byte) int {
	n := 1 + invokeSize + 4
	if origins != nil {
		n += 4
	}
	for i, m := range messages {
		n += batchedSize + metaSize(m, m.Properties()) + len(m.Body)
		if origins != nil {
			n += 4 + len(origins[i])
		}
	}
	return n
}

// AppendBatchHead appends the beginning of an INVOKE with a batch. AppendBatched and a body follow
// for each message, and then EndBatch.
func AppendBatchHead(out []byte, i *Invocation) []byte {
	flags, first := uint16(withBatch), i.Batch[0]
	if i.Origins != nil {
		flags |= withOrigin
	}
	out = appendHead(out, Invoke, 0) // EndBatch sets the size
	out = binary.LittleEndian.AppendUint32(out, i.ID)
	out = binary.LittleEndian.AppendUint16(out, i.Function)
	out = binary.LittleEndian.AppendUint16(out, flags)
	out = binary.LittleEndian.AppendUint32(out, uint32(min(first.Attempt, math.MaxInt32)))
	out = binary.LittleEndian.AppendUint64(out, uint64(unixMicros(first.Enqueued)))
	out = binary.LittleEndian.AppendUint64(out, uint64(unixMicros(i.Deadline)))
	out = binary.LittleEndian.AppendUint32(out, 0) // meta
	if i.Origins != nil {
		out = binary.LittleEndian.AppendUint32(out, 0) // the origin of the call: those of the messages are with them
	}
	return binary.LittleEndian.AppendUint32(out, uint32(len(i.Batch)))
}

// AppendBatched appends the message of a batch at an index, without its body, which must follow.
func AppendBatched(out []byte, i *Invocation, index int) []byte {
	m := i.Batch[index]
	out = binary.LittleEndian.AppendUint32(out, uint32(min(m.Attempt, math.MaxInt32)))
	out = binary.LittleEndian.AppendUint64(out, uint64(unixMicros(m.Enqueued)))
	at := len(out)
	out = binary.LittleEndian.AppendUint32(out, 0) // the length of meta, whose properties may change between two reads
	if i.Origins != nil {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(i.Origins[index])))
		out = append(out, i.Origins[index]...)
	}
	meta := len(out)
	out = appendMeta(out, m, m.Properties())
	binary.LittleEndian.PutUint32(out[at:], uint32(len(out)-meta))
	return binary.LittleEndian.AppendUint32(out, uint32(len(m.Body)))
}

// EndBatch sets the size of an INVOKE with a batch. frame begins with AppendBatchHead; outside is the
// size of the bodies that are not in it.
func EndBatch(frame []byte, outside int) {
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-4+outside))
}

// AppendBatch appends an INVOKE with a batch.
func AppendBatch(out []byte, i *Invocation) []byte {
	start := len(out)
	out = AppendBatchHead(out, i)
	for index, m := range i.Batch {
		out = append(AppendBatched(out, i, index), m.Body...)
	}
	EndBatch(out[start:], 0)
	return out
}

// CutBatch splits the payload of a RESULT of status Batch: a verdict on each message, and the
// result of the call itself; nil if it has none. Their payloads are parts of payload.
func CutBatch(payload []byte) (each []Reply, whole *Reply, err error) {
	if len(payload) < 4 {
		return nil, nil, protocolError("a RESULT with verdicts, of %d bytes", len(payload))
	}
	n, rest := binary.LittleEndian.Uint32(payload), payload[4:]
	const least = 1 + 4
	if uint64(n)*least > uint64(len(rest)) {
		return nil, nil, protocolError("a RESULT with %d verdicts in %d bytes", n, len(payload))
	}
	each = make([]Reply, n)
	for i := range each {
		if len(rest) < least {
			return nil, nil, protocolError("a verdict that is cut off")
		}
		status, size := rest[0], binary.LittleEndian.Uint32(rest[1:])
		if rest = rest[least:]; uint64(size) > uint64(len(rest)) {
			return nil, nil, protocolError("a verdict of %d bytes, where %d are left", size, len(rest))
		}
		if each[i], err = readVerdict(status, rest[:size:size]); err != nil {
			return nil, nil, err
		}
		rest = rest[size:]
	}
	if len(rest) == 0 {
		return each, nil, nil
	}
	own, err := readVerdict(rest[0], rest[1:])
	if err == nil && own.Status != Done {
		err = protocolError("a RESULT with verdicts, and a result of status %d", rest[0])
	}
	return each, &own, err
}

// readVerdict returns the verdict on a message of a batch.
func readVerdict(status byte, payload []byte) (r Reply, err error) {
	if r, err = readStatus(status, len(payload)); err == nil && r.Status > NotTried {
		err = protocolError("a verdict of status %d", status)
	}
	r.Payload = payload
	return r, err
}
