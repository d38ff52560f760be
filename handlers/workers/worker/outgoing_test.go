package worker

import (
	"bytes"
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
