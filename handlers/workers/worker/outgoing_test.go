package worker

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// TestOutgoingCopiesNoLargeBody writes bodies of many sizes, and compares the bytes with
// those of frames that are put together.
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
