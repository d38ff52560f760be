package worker

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// TestOutgoingCopiesNoLargeBody writes bodies of many sizes, and compares the bytes with frames in
// one piece.
func TestOutgoingCopiesNoLargeBody(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	to, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	from, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	var want []byte
	var out outgoing
	held := 0
	for round := range 2 { // the second one uses the buffers of the first
		for i, size := range []int{0, 1, minLarge - 1, minLarge, 3, 1 << 20, 5 << 20, minLarge, 7} {
			m := &triggers.Message{ID: "id", Subject: "s", Body: bytes.Repeat([]byte{byte(i + round)}, size)}
			c := &protocol.Invocation{ID: uint32(i), Message: m}
			want = protocol.AppendInvoke(want, c)
			out.addInvoke(c)
			if i == 5 {
				want = protocol.AppendCancel(want, 5)
				out.bytes = protocol.AppendCancel(out.bytes, 5)
			}
		}
		held = max(held, cap(out.bytes))
		read := make(chan []byte)
		go func() {
			got := make([]byte, len(want))
			_, _ = io.ReadFull(from, got)
			read <- got
		}()
		if err := out.writeTo(to); err != nil {
			t.Fatal(err)
		}
		if got := <-read; !bytes.Equal(got, want) {
			t.Fatalf("round %d: other bytes", round)
		}
		want, out = nil, out.reuseBuffers()
	}
	if held > 1<<20 {
		t.Errorf("%d bytes were held in addition to bodies of 6 MiB", held)
	}
	_ = to.Close()
}

// TestTryWrite fills a socket whose other side does not read. The rest is written when it does.
func TestTryWrite(t *testing.T) {
	ours, theirs, err := childproc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ours.Close() }()
	from, err := net.FileConn(theirs)
	if err := errors.Join(err, theirs.Close()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	var out outgoing
	var want []byte
	for i := 0; len(out.bytes) == 0; i++ {
		c := &protocol.Invocation{ID: uint32(i), Message: &triggers.Message{ID: strconv.Itoa(i), Body: make([]byte, minLarge-1)}}
		out.addInvoke(c)
		want = protocol.AppendInvoke(want, c)
		if all := out.tryWrite(ours); all != (len(out.bytes) == 0) {
			t.Fatalf("frame %d: everything written %v, %d bytes are left", i, all, len(out.bytes))
		}
	}
	failed := make(chan error, 1)
	go func() { failed <- out.writeTo(ours) }()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(from, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, or other bytes", err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
	out = outgoing{}
	out.addInvoke(&protocol.Invocation{Message: &triggers.Message{Body: make([]byte, minLarge)}})
	if out.tryWrite(ours) || len(out.bytes) == 0 {
		t.Error("a large body was written in a copy")
	}
	if out = (outgoing{bytes: []byte("x")}); ours.Close() != nil || out.tryWrite(ours) || len(out.bytes) != 1 {
		t.Errorf("%d bytes are left of 1 for a closed socket", len(out.bytes))
	}
}

// BenchmarkOutgoing writes 32 frames at a time to a socket, with bodies around minLarge, and reports
// the CPU time of a frame.
func BenchmarkOutgoing(b *testing.B) {
	for _, size := range []int{minLarge / 4, minLarge - 1, minLarge, 10 << 10} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			to, theirs, err := childproc.Socketpair()
			if err != nil {
				b.Fatal(err)
			}
			reader := exec.Command("cat")
			reader.Stdin = theirs
			if err := reader.Start(); err != nil {
				b.Fatal(err)
			}
			_ = theirs.Close()
			call := &protocol.Invocation{Message: &triggers.Message{ID: "id", Subject: "s", Body: make([]byte, size)}}
			var out outgoing
			before := cpuTime(b)
			for range b.N/32 + 1 {
				for range 32 {
					out.addInvoke(call)
				}
				if err := out.writeTo(to); err != nil {
					b.Fatal(err)
				}
				out = out.reuseBuffers()
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
			_ = to.Close()
			_ = reader.Wait()
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestOutgoingGrowsInFewSteps checks that frames which wait for the writer leave little garbage.
func TestOutgoingGrowsInFewSteps(t *testing.T) {
	m := &triggers.Message{ID: "id", Subject: "s", Body: make([]byte, 1000)}
	var out outgoing
	allocated := 0
	for range 1000 {
		before := cap(out.bytes)
		out.addInvoke(&protocol.Invocation{Message: m})
		if after := cap(out.bytes); after != before {
			allocated += after
		}
	}
	if most := 4 * len(out.bytes); allocated > most {
		t.Errorf("%d bytes were allocated for %d bytes of frames, want at most %d", allocated, len(out.bytes), most)
	}
}
