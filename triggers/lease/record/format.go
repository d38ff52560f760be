package record

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"slices"
	"time"
)

// A file of leases is a sequence of frames. A frame has the length of its content and a checksum,
// both in 4 bytes, little-endian. The first frame is a header in JSON. The others are operations,
// with numbers as varints and strings after their length:
//
//   - opSource: the number of a source, its key
//   - opHold: the number of a lease, that of its source, the milliseconds since the boot until
//     which it is valid, its ID, its token. It may replace a lease with the same number.
//   - opDrop: the number of a lease that has ended
//
// A file ends at the first frame that is incomplete or damaged: its writer was killed.

const (
	opSource = 's'
	opHold   = 'h'
	opDrop   = 'd'

	frameHead = 8
	// maxFile bounds the bytes that are read. The writer stays far below it.
	maxFile = 128 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errNoHeader = errors.New("it is no record of leases")
	errTooLarge = errors.New("the record of leases is too large")
	errDamaged  = errors.New("a damaged operation")
)

// header is the first frame.
type header struct {
	Place  string        `json:"place"`  // see identify
	Opened time.Duration `json:"opened"` // since the boot
	Deaths int           `json:"deaths"` // of daemons in a row that died soon after their start
}

// savedLease is a lease in a file.
type savedLease struct {
	number            uint64
	source, id, token string
	until             time.Duration // since the boot
}

// saved is the content of a file.
type saved struct {
	head   header
	leases []savedLease // in the order in which they were recorded
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s: %w", path, errTooLarge)
	}
	return text, err
}

// beginFrame appends an empty frame, which finishFrame completes.
func beginFrame(b []byte) []byte { return append(b, make([]byte, frameHead)...) }

// finishFrame completes the frame that starts at an offset and extends to the end.
func finishFrame(b []byte, start int) []byte {
	content := b[start+frameHead:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(content)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(content, castagnoli))
	return b
}

func appendHeader(b []byte, h header) []byte {
	start := len(b)
	text, _ := json.Marshal(h) // strings and numbers always can be
	return finishFrame(append(beginFrame(b), text...), start)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendSource(b []byte, number uint64, key string) []byte {
	return appendString(binary.AppendUvarint(append(b, opSource), number), key)
}

func appendHold(b []byte, number, source uint64, until time.Duration, id, token string) []byte {
	b = binary.AppendUvarint(append(b, opHold), number)
	b = binary.AppendUvarint(b, source)
	b = binary.AppendUvarint(b, uint64(max(until.Milliseconds(), 0)))
	return appendString(appendString(b, id), token)
}

func appendDrop(b []byte, number uint64) []byte {
	return binary.AppendUvarint(append(b, opDrop), number)
}

// cutFrame returns the content of the first frame, and what follows it. ok is false at the end.
func cutFrame(b []byte) (content, rest []byte, ok bool) {
	if len(b) < frameHead {
		return nil, nil, false
	}
	n, sum := uint64(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint32(b[4:])
	b = b[frameHead:]
	if n > uint64(len(b)) || crc32.Checksum(b[:n], castagnoli) != sum {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// decode reads a file up to its first damaged frame.
func decode(text []byte) (out saved, err error) {
	content, rest, ok := cutFrame(text)
	if !ok {
		return out, errNoHeader
	}
	if err := json.Unmarshal(content, &out.head); err != nil {
		return out, fmt.Errorf("%w: %w", errNoHeader, err)
	}
	sources, leases := make(map[uint64]string), make(map[uint64]savedLease)
	for {
		if content, rest, ok = cutFrame(rest); !ok {
			break
		}
		for r := (reader{content, nil}); len(r.left) > 0; {
			if r.readOperation(sources, leases); r.err != nil {
				return out, r.err
			}
		}
	}
	for _, number := range slices.Sorted(maps.Keys(leases)) {
		out.leases = append(out.leases, leases[number])
	}
	return out, nil
}

// reader reads the operations of a frame.
type reader struct {
	left []byte
	err  error
}

func (r *reader) readOperation(sources map[uint64]string, leases map[uint64]savedLease) {
	op := r.left[0]
	r.left = r.left[1:]
	number := r.readNumber()
	switch op {
	case opSource:
		sources[number] = r.readString()
	case opHold:
		source, known := sources[r.readNumber()]
		l := savedLease{number: number, source: source, until: time.Duration(r.readNumber()) * time.Millisecond}
		l.id, l.token = r.readString(), r.readString()
		if !known {
			r.err = errDamaged
		}
		leases[number] = l
	case opDrop:
		delete(leases, number)
	default:
		r.err = errDamaged
	}
}

func (r *reader) readNumber() uint64 {
	n, size := binary.Uvarint(r.left)
	if size <= 0 {
		r.left, r.err = nil, errDamaged
		return 0
	}
	r.left = r.left[size:]
	return n
}

func (r *reader) readString() string {
	n := r.readNumber()
	if n > uint64(len(r.left)) {
		r.left, r.err = nil, errDamaged
		return ""
	}
	s := string(r.left[:n])
	r.left = r.left[n:]
	return s
}
