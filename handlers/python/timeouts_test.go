package python

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// direct is a worker process that a test speaks to without a pool, frame by frame.
type direct struct {
	t      *testing.T
	conn   net.Conn
	parser *protocol.Parser
	stderr bytes.Buffer
	cmd    *exec.Cmd
}

// startDirect runs a worker over the source of function_app.py, with the functions
// loaded. It is ended with the test.
func startDirect(t *testing.T, interpreter, source string, threads int, functions ...string) *direct {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "function_app.py"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	home, err := Install(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	syscall.ForkLock.RLock() // no child is forked between the two calls
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "daemon")
	d := &direct{t: t, parser: protocol.NewParser(protocol.DefaultMax), cmd: exec.Command(interpreter, "-u", home)}
	d.conn, err = net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.ExtraFiles, d.cmd.Stderr, d.cmd.Dir = []*os.File{theirs}, &d.stderr, dir
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = ours.Close(), theirs.Close()
	t.Cleanup(func() {
		_ = d.conn.Close()
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait() // it was killed
	})
	d.json(protocol.Hello, protocol.HelloFrame{Protocol: protocol.Version, MaxFrame: protocol.DefaultMax, Capabilities: []string{protocol.CanLog}})
	d.expect(protocol.Welcome)
	load := protocol.LoadFrame{App: dir, Threads: threads, Coroutines: 512}
	for _, f := range functions {
		load.Functions = append(load.Functions, protocol.Function{Name: f, Module: "function_app", Function: f})
	}
	d.json(protocol.Load, load)
	d.expect(protocol.Ready)
	return d
}

func (d *direct) write(frames []byte) {
	d.t.Helper()
	if _, err := d.conn.Write(frames); err != nil {
		d.t.Fatalf("%v\n%s", err, d.stderr.Bytes())
	}
}

func (d *direct) json(kind protocol.Kind, value any) {
	d.t.Helper()
	frame, err := protocol.AppendJSON(nil, kind, value)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write(frame)
}

// expect returns the payload of the next frame of a kind; logs and statistics are
// skipped.
func (d *direct) expect(want protocol.Kind) []byte {
	d.t.Helper()
	for {
		kind, payload, err := d.parser.Next()
		switch {
		case err != nil:
			d.t.Fatal(err)
		case kind == want:
			return payload
		case kind == protocol.Stats:
		case kind == protocol.Log:
			d.t.Logf("%s", payload)
		case kind != 0:
			d.t.Fatalf("a %v came, not a %v: %s", kind, want, payload)
		default:
			_ = d.conn.SetReadDeadline(time.Now().Add(patience))
			n, err := d.conn.Read(d.parser.Space())
			if err != nil {
				_ = d.cmd.Process.Kill()
				_ = d.cmd.Wait()
				d.t.Fatalf("instead of a %v: %v\n%s", want, err, d.stderr.Bytes())
			}
			d.parser.Took(n)
		}
	}
}

func (d *direct) result() protocol.Reply {
	d.t.Helper()
	r, err := protocol.ReadResult(d.expect(protocol.Result))
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

// A Timeout that comes when its call is ending must not hit what runs after it, nor the
// worker itself: calls are cancelled at the moment that they end, thousands of
// times, with others behind them that are not.
func TestATimeoutHitsItsCallAlone(t *testing.T) {
	const source = `
import sys, drover.frames
sys.setswitchinterval(1e-5)
drover.frames.WATCH = 1e-4  # looks for cancellations all the time
def count(n):
    i = 0
    while i < n: i += 1
    return i
def f(body):
    count(int.from_bytes(body[:4], "little"))
    return body
def raises(body):
    count(int.from_bytes(body[:4], "little"))
    raise ValueError("of the function's own")
`
	// The thread that cancels is held up between its look at what runs and the deed.
	const late = `
import signal, time
from drover.timeouts import Threads
def later(deed):
    def do(*args): time.sleep(0.0002); deed(*args)
    return do
signal.pthread_kill = later(signal.pthread_kill)
begin = Threads.__init__
def __init__(self): begin(self); self._set = later(self._set)
Threads.__init__ = __init__
`
	for _, interpreter := range interpreters(t) {
		for _, mode := range []struct {
			name, source string
			threads      int
			rounds       uint64
		}{{"inline", source, 1, 300}, {"threads", source, 3, 300}, {"inline, late", source + late, 1, 100}, {"threads, late", source + late, 3, 100}} {
			t.Run(filepath.Base(filepath.Dir(filepath.Dir(interpreter)))+"/"+mode.name, func(t *testing.T) {
				t.Parallel()
				d := startDirect(t, interpreter, mode.source, mode.threads, "f", "raises")
				random := rand.New(rand.NewPCG(mode.rounds, uint64(mode.threads)))
				var done, failed, timedOut, notTried int
				for serial := uint64(0); serial < mode.rounds || done == 0 || timedOut == 0; serial++ {
					if serial > 100*mode.rounds {
						t.Fatalf("of those that were cancelled %d were done, %d timed out", done, timedOut)
					}
					const batch = 8
					open := make(map[uint32][]byte)
					var invokes, cancels []byte
					for id := range uint32(batch) {
						body := make([]byte, 16)
						binary.LittleEndian.PutUint32(body, uint32(random.IntN(5000)))
						binary.LittleEndian.PutUint64(body[8:], serial*batch+uint64(id))
						open[id] = body
						invokes = protocol.AppendInvoke(invokes, &protocol.Invocation{ID: id, Function: uint16(id / 2 % 2), Message: &triggers.Message{Body: body}})
						if id%2 == 0 {
							cancels = protocol.AppendCancel(cancels, id)
						}
					}
					d.write(invokes)
					for start, wait := time.Now(), time.Duration(random.IntN(1000))*time.Microsecond; time.Since(start) < wait; {
					}
					d.write(cancels)
					for len(open) > 0 {
						r := d.result()
						body, is := open[r.ID]
						if !is {
							t.Fatalf("a second answer for %d: status %d, %q", r.ID, r.Status, r.Payload)
						}
						delete(open, r.ID)
						cancelled, raises := r.ID%2 == 0, r.ID/2%2 == 1
						switch {
						case r.Status == protocol.Done && !raises && bytes.Equal(r.Payload, body):
							if cancelled {
								done++
							}
						case r.Status == protocol.Failure && raises && strings.Contains(string(r.Payload), "of the function's own"):
							failed++
						case r.Status == protocol.Failure && cancelled && bytes.Contains(r.Payload, []byte("Timeout: ")):
							timedOut++
						case r.Status == protocol.NotTried && cancelled:
							notTried++
						default:
							t.Fatalf("call %d, cancelled: %v: status %d, %q", r.ID, cancelled, r.Status, r.Payload)
						}
					}
				}
				t.Logf("of those that were cancelled %d were done, %d timed out, %d were not tried", done, timedOut, notTried)
			})
		}
	}
}

// interpreters are those of this machine that are new enough, one of each version.
func interpreters(t *testing.T) []string {
	t.Helper()
	usual, err := Find(t.Context(), t.TempDir(), os.Getenv("DROVER_TEST_PYTHON"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(os.Getenv("HOME"), ".pyenv/versions/3.*/bin/python3"))
	if err != nil {
		t.Fatal(err)
	}
	for minor := 9; minor < 20; minor++ {
		if path, err := exec.LookPath(fmt.Sprint("python3.", minor)); err == nil {
			found = append(found, path)
		}
	}
	paths, seen := []string{usual.Path}, map[string]bool{usual.Version: true}
	for _, path := range found {
		if i, err := Find(t.Context(), t.TempDir(), path, os.LookupEnv); err == nil && !seen[i.Version] {
			paths, seen[i.Version] = append(paths, path), true
		}
	}
	return paths
}
