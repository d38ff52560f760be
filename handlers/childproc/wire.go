package childproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// The protocol between the daemon and the reaper. A message has a head of six bytes (u32 length of
// the rest, u8 kind, u8 number of file descriptors sent with the head), and the rest. All numbers
// are little-endian, and a text is a u32 length and its bytes. Every message begins with the u64
// number of a process.
//
// reaperName is argv[0] of the program when it runs as the reaper.
const reaperName = "drover-reaper"

const (
	// Sent to the reaper.
	kindStart  = 1 // path, name, dir, u32 n and n args, u32 n and n of the environment; file descriptors from 0
	kindSignal = 2 // u32 signal
	kindAdopt  = 3 // u64 number of the parent, u32 pid

	// Sent by the reaper.
	kindReady   = 64 // u32: 1 if processes can be marked; the process number is 0
	kindStarted = 65 // u32 pid: the process was started or adopted
	kindRefused = 66 // u32 errno (0: none), text
	kindExited  = 67 // u32 1 if the rest is known, u32 wait status, u64 CPU time in ns, u64 maximum RSS in bytes
)

const (
	headSize = 6
	// maxMessage bounds a message, in bytes. It is more than a kernel accepts as arguments and
	// environment.
	maxMessage = 8 << 20
	// maxFiles bounds the file descriptors passed to a process.
	maxFiles = 64
	// maxProcesses bounds the processes of a reaper.
	maxProcesses = 1 << 14
)

// message is one of these messages. newMessage writes the head and the process number.
type message []byte

func newMessage(kind, files byte, id uint64) message {
	return binary.LittleEndian.AppendUint64(message{0, 0, 0, 0, kind, files}, id)
}

func (m message) addUint32(n uint32) message { return binary.LittleEndian.AppendUint32(m, n) }
func (m message) addUint64(n uint64) message { return binary.LittleEndian.AppendUint64(m, n) }
func (m message) addString(s string) message { return append(m.addUint32(uint32(len(s))), s...) }

func (m message) addStrings(list []string) message {
	m = m.addUint32(uint32(len(list)))
	for _, s := range list {
		m = m.addString(s)
	}
	return m
}

// withLength sets the length in the head.
func (m message) withLength() (message, error) {
	if len(m) > maxMessage {
		return nil, fmt.Errorf("the command takes %d bytes with its arguments and its environment, and %d are the most", len(m), maxMessage)
	}
	binary.LittleEndian.PutUint32(m, uint32(len(m)-headSize))
	return m, nil
}

var errMessage = errors.New("a message that is none")

// parseHead parses a head.
func parseHead(head []byte) (length int, kind byte, files int, err error) {
	length = int(binary.LittleEndian.Uint32(head))
	kind, files = head[4], int(head[5])
	if length < 8 || length > maxMessage || files > maxFiles {
		return 0, 0, 0, fmt.Errorf("%w: %d bytes, %d files", errMessage, length, files)
	}
	return length, kind, files, nil
}

// fields reads the fields of a message in order. After the first missing field, it returns zero
// values, and bad is set.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) readBytes(n int) []byte {
	if n < 0 || n > len(f.rest) {
		f.bad, f.rest = true, nil
		return make([]byte, min(max(n, 0), 8)) // enough for the callers, which read a number or nothing
	}
	var out []byte
	out, f.rest = f.rest[:n], f.rest[n:]
	return out
}

func (f *fields) readUint32() uint32 { return binary.LittleEndian.Uint32(f.readBytes(4)) }
func (f *fields) readUint64() uint64 { return binary.LittleEndian.Uint64(f.readBytes(8)) }

func (f *fields) readString() string {
	n := int(f.readUint32())
	if n > len(f.rest) {
		f.bad = true
		return ""
	}
	return string(f.readBytes(n))
}

func (f *fields) readStrings() []string {
	n := int(f.readUint32())
	if n > len(f.rest)/4 {
		f.bad = true
		return nil
	}
	out := make([]string, 0, n)
	for range n {
		out = append(out, f.readString())
	}
	return out
}

// checkEnd returns an error unless all fields were read.
func (f *fields) checkEnd() error {
	if f.bad || len(f.rest) > 0 {
		return errMessage
	}
	return nil
}

func (f *fields) readDuration() time.Duration { return time.Duration(f.readUint64()) }
