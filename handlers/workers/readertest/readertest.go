// Package readertest fuzzes the frame reader of a worker against the daemon's own parser. The tests
// of the workers call Fuzz.
package readertest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// Reader is the frame reader of a worker.
type Reader struct {
	// Command is a harness around it, run with Environ in addition to this process's
	// environment; testdata/reader.py of package python documents its protocol.
	Command, Environ []string
	// Plain is set for a reader that does not check which JSON frame is expected, and uses
	// floating-point numbers for times.
	Plain bool
}

// Fuzz checks that a worker parses the daemon's frames like the daemon's parser, with any
// fragmentation, and that it fails only by reporting an invalid frame.
func Fuzz(f *testing.F, reader Reader) {
	process := &harness{Reader: reader}
	f.Cleanup(func() { process.stop(f) })
	message := &triggers.Message{ID: "m", Subject: "s", Attempt: 3, Body: []byte("body"), Attributes: map[string]string{"a": "b"}, Enqueued: time.UnixMicro(12345)}
	invoke := protocol.AppendInvoke(nil, &protocol.Invocation{ID: 7, Function: 1, Message: message})
	stateful := protocol.AppendInvoke(nil, &protocol.Invocation{ID: 8, Message: message, Stateful: true, State: []byte("state"), Deadline: time.UnixMicro(67890)})
	both := protocol.AppendInvoke(nil, &protocol.Invocation{ID: 6, Message: message, Stateful: true, State: []byte("state"), Origin: []byte(`{"Id":"m"}`)})
	origin := protocol.AppendInvoke(nil, &protocol.Invocation{ID: 5, Function: 1, Message: message, Origin: []byte(`{}`)})
	none := protocol.AppendInvoke(nil, &protocol.Invocation{ID: 9, Message: message, Stateful: true})
	load, err := protocol.AppendJSON(nil, protocol.Load, protocol.LoadFrame{App: "/app"})
	if err != nil {
		f.Fatal(err)
	}
	all := slices.Concat(invoke, protocol.AppendCancel(nil, 7), protocol.AppendCredit(nil, 7, 65536), stateful, none, both, origin, protocol.AppendDrain(nil))
	f.Add(all, []byte{}, uint32(1<<20), uint16(2), byte(0))
	f.Add(all, []byte{1}, uint32(1<<20), uint16(2), byte(0))
	f.Add(all, []byte{1, 40, 0}, uint32(1<<20), uint16(1), byte(0))
	f.Add(all, []byte{0, 200}, uint32(len(stateful)-5), uint16(2), byte(0))
	f.Add(slices.Concat(load, protocol.AppendDrain(nil)), []byte{3}, uint32(10), uint16(0), byte(protocol.Load))
	f.Add(load, []byte{}, uint32(10), uint16(0), byte(protocol.Hello))
	set, err := protocol.AppendJSON(nil, protocol.Set, protocol.SettingsFrame{Threads: 4, Coroutines: 8})
	if err != nil {
		f.Fatal(err)
	}
	sample, err := protocol.AppendJSON(nil, protocol.Profile, protocol.ProfileFrame{Profile: 1, Period: 10_000})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slices.Concat(set, sample, invoke), []byte{2}, uint32(1<<20), uint16(2), byte(0))
	f.Add(slices.Concat(sample, invoke), []byte{2}, uint32(1<<20), uint16(2), byte(0))
	f.Add(slices.Concat(set, invoke), []byte{2}, uint32(1<<20), uint16(2), byte(protocol.Load))
	for _, wrong := range [][]byte{{0, 0, 0, 0}, {0xFF, 0xFF, 0xFF, 0xFF}, {0xFF, 0xFF, 0xFF, 0xFF, 3}, {2, 0, 0, 0, 5, 0}, {3, 0, 0, 0, 4, 1, 2}, {1, 0, 0, 0, 0}, {5, 0, 0, 0, 3, 0, 0, 0, 0}} {
		f.Add(slices.Concat(invoke, wrong), []byte{}, uint32(1<<20), uint16(2), byte(0))
		f.Add(wrong, []byte{1}, uint32(1<<20), uint16(2), byte(0))
	}
	var large []byte // of frames that reach beyond any buffer, each with a small one behind it
	for i, size := range []int{100, 30 << 10, 40 << 10, 70 << 10, 1, 33 << 10} {
		body := bytes.Repeat([]byte{byte(i), 1, 2}, size/3+1)
		large = protocol.AppendInvoke(large, &protocol.Invocation{ID: uint32(i), Message: &triggers.Message{ID: "m", Body: body}})
		large = protocol.AppendCancel(large, uint32(i))
	}
	f.Add(large, []byte{}, uint32(1<<20), uint16(2), byte(0))
	f.Add(large, []byte{255, 3}, uint32(1<<20), uint16(2), byte(0))
	f.Add(large[:len(large)-20<<10], []byte{}, uint32(1<<20), uint16(2), byte(0))
	for _, at := range []int{11, 33, 37, 46} { // flags, the length of meta, of the state and of the origin
		bad := slices.Clone(both)
		bad[at] = 0xFF
		f.Add(bad, []byte{}, uint32(1<<20), uint16(2), byte(0))
	}
	f.Fuzz(func(t *testing.T, data, pieces []byte, maximum uint32, functions uint16, due byte) {
		if due != byte(protocol.Hello) && due != byte(protocol.Load) {
			due = 0 // no other frame of JSON is ever expected
		}
		how := reading{maximum % (4 << 20), functions, protocol.Kind(due), reader.Plain}
		var sizes []uint16
		for _, n := range pieces[:min(len(pieces), 100)] {
			sizes = append(sizes, uint16(n))
		}
		data = data[:min(len(data), 256<<10)] // longer data only takes more time
		want := expected(how, data)
		got := process.read(t, how, sizes, data)
		// A reader may drop the frames that arrived in one piece with an invalid frame.
		if n := len(got) - 1; want[len(want)-1] == "wrong" && n >= 0 && n < len(want) && got[n] == "wrong" {
			want = append(want[:n:n], "wrong")
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q\nwant %q", got, want)
		}
	})
}

// reading is the state of a worker's reader: max_frame of HELLO, the number of loaded functions, and
// the JSON frame that is expected, if any; see Reader.Plain.
type reading struct {
	maximum   uint32
	functions uint16
	due       protocol.Kind
	plain     bool
}

func (r reading) isDue(kind protocol.Kind) bool {
	switch kind {
	case protocol.Set:
		return !r.plain && r.due == 0
	case protocol.Profile:
		return r.plain || r.due == 0
	}
	return (kind == protocol.Hello || kind == protocol.Load) && (r.plain || r.due == kind)
}

// expected returns what a worker must read, in the harness's output format, according to the
// daemon's parser and docs/worker-protocol.md.
func expected(r reading, data []byte) (said []string) {
	p := protocol.NewParser(int(r.maximum))
	rest := data
	for len(data) > 0 {
		n := copy(p.ReadBuffer(), data)
		p.AdvanceRead(n)
		data = data[n:]
		for {
			kind, payload, err := p.NextFrame()
			if err != nil {
				return append(said, "wrong")
			}
			if kind == 0 {
				break
			}
			rest = rest[4+1+len(payload):]
			line := expectedFrame(r, kind, payload)
			said = append(said, line)
			if line == "wrong" {
				return said
			}
		}
	}
	if len(rest) > 4 && !r.isDue(protocol.Kind(rest[4])) && !slices.Contains([]protocol.Kind{protocol.Invoke, protocol.Cancel, protocol.Credit, protocol.Drain}, protocol.Kind(rest[4])) {
		return append(said, "wrong") // the frame need not be complete
	}
	return append(said, "end")
}

func expectedFrame(r reading, kind protocol.Kind, payload []byte) string {
	switch {
	case kind == protocol.Cancel && len(payload) == 4:
		return fmt.Sprint("cancel ", binary.LittleEndian.Uint32(payload))
	case kind == protocol.Credit && len(payload) == 8:
		return fmt.Sprint("credit ", binary.LittleEndian.Uint32(payload), " ", binary.LittleEndian.Uint32(payload[4:]))
	case kind == protocol.Drain && len(payload) == 0:
		return "drain"
	case kind == protocol.Invoke:
		return expectedInvoke(r, payload)
	case r.isDue(kind):
		return fmt.Sprintf("json %d %d", len(payload), crc32.ChecksumIEEE(payload))
	}
	return "wrong"
}

func expectedInvoke(r reading, payload []byte) string {
	const fixed = 4 + 2 + 2 + 4 + 8 + 8 + 4
	if len(payload) < fixed {
		return "wrong"
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(payload[at:]) }
	id, function, flags, meta := u32(0), binary.LittleEndian.Uint16(payload[4:]), binary.LittleEndian.Uint16(payload[6:]), u32(28)
	rest := payload[fixed:]
	if flags&1 != 0 {
		if len(rest) < 4 {
			return "wrong"
		}
		n := binary.LittleEndian.Uint32(rest)
		if rest = rest[4:]; n != 0xFFFFFFFF {
			if uint64(n) > uint64(len(rest)) {
				return "wrong"
			}
			rest = rest[n:]
		}
	}
	var origin []byte
	if flags&2 != 0 {
		if len(rest) < 4 {
			return "wrong"
		}
		n := binary.LittleEndian.Uint32(rest)
		if rest = rest[4:]; uint64(n) > uint64(len(rest)) {
			return "wrong"
		}
		origin, rest = rest[:n], rest[n:]
	}
	if uint64(meta) > uint64(len(rest)) || function >= r.functions {
		return "wrong"
	}
	body := rest[meta:]
	moment := func(at int) string {
		us := int64(binary.LittleEndian.Uint64(payload[at:]))
		if r.plain {
			return strconv.FormatFloat(float64(us), 'f', 0, 64)
		}
		return strconv.FormatInt(us, 10)
	}
	return fmt.Sprintf("invoke %d %d %d %s %s %d %d %d %d %d %d", id, function, u32(8), moment(12), moment(20),
		meta, crc32.ChecksumIEEE(rest[:meta]), len(body), crc32.ChecksumIEEE(body), len(origin), crc32.ChecksumIEEE(origin))
}

// harness is a process that reads cases with the worker's own code. It is started with the first
// case, because most processes of a test run have none.
type harness struct {
	Reader
	once sync.Once
	err  error
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

func (h *harness) start(t testing.TB) {
	h.once.Do(func() {
		h.cmd = exec.Command(h.Command[0], h.Command[1:]...)
		h.cmd.Env, h.cmd.Stderr = append(os.Environ(), h.Environ...), os.Stderr
		if h.in, h.err = h.cmd.StdinPipe(); h.err != nil {
			return
		}
		out, err := h.cmd.StdoutPipe()
		if err != nil {
			h.err = err
			return
		}
		h.out = bufio.NewReader(out)
		h.err = h.cmd.Start()
	})
	if h.err != nil {
		t.Fatal(h.err)
	}
}

// stop ends the process, by closing its input.
func (h *harness) stop(t testing.TB) {
	if h.in == nil {
		return
	}
	if err := h.in.Close(); err != nil {
		t.Error(err)
	}
	if err := h.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// read sends a case to the process, and returns its output.
func (h *harness) read(t testing.TB, how reading, pieces []uint16, data []byte) []string {
	t.Helper()
	h.start(t)
	out := binary.LittleEndian.AppendUint32(make([]byte, 4), how.maximum)
	out = binary.LittleEndian.AppendUint16(out, how.functions)
	out = append(out, byte(how.due))
	out = binary.LittleEndian.AppendUint16(out, uint16(len(pieces)))
	for _, n := range pieces {
		out = binary.LittleEndian.AppendUint16(out, n)
	}
	out = append(out, data...)
	binary.LittleEndian.PutUint32(out, uint32(len(out)-4))
	// A case takes milliseconds. A process that hangs is killed.
	limit := time.AfterFunc(time.Minute, func() { _ = h.cmd.Process.Kill() })
	defer limit.Stop()
	if _, err := h.in.Write(out); err != nil {
		t.Fatal(err)
	}
	var head [4]byte
	if _, err := io.ReadFull(h.out, head[:]); err != nil {
		t.Fatalf("no answer: %v", err)
	}
	text := make([]byte, binary.LittleEndian.Uint32(head[:]))
	if _, err := io.ReadFull(h.out, text); err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}
