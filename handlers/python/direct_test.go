package python

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

// direct is a worker process that a test speaks to without a pool, frame by frame.
type direct struct {
	t      *testing.T
	conn   net.Conn
	parser *protocol.Parser
	stderr bytes.Buffer
	cmd    *exec.Cmd
}

// startDirect runs a worker over the source of function_app.py, with the functions loaded, until
// the test ends.
func startDirect(t *testing.T, interpreter, source string, threads int, functions ...string) *direct {
	t.Helper()
	d := greetDirect(t, interpreter, source, threads, functions...)
	d.expect(protocol.Ready)
	return d
}

// greetDirect is startDirect, up to the answer to LOAD.
func greetDirect(t *testing.T, interpreter, source string, threads int, functions ...string) *direct {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "function_app.py"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	_, home := installation.find(t)
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
		_ = d.cmd.Wait() // it was killed, or has ended
	})
	d.json(protocol.Hello, protocol.HelloFrame{Protocol: protocol.Version, MaxFrame: protocol.DefaultMax, Capabilities: []string{protocol.CanLog}})
	d.expect(protocol.Welcome)
	load := protocol.LoadFrame{App: dir, Threads: threads, Coroutines: 512}
	for _, f := range functions {
		load.Functions = append(load.Functions, protocol.Function{Name: f, Module: "function_app", Function: f})
	}
	d.json(protocol.Load, load)
	return d
}

// ends waits until the worker has ended by itself.
func (d *direct) ends(status int) {
	d.t.Helper()
	ended := make(chan struct{})
	go func() { _ = d.cmd.Wait(); close(ended) }() // its status is checked later
	select {
	case <-ended:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-ended
		d.t.Fatalf("it does not end\n%s", d.stderr.Bytes())
	}
	if got := d.cmd.ProcessState.ExitCode(); got != status {
		d.t.Errorf("it ended with status %d, want %d\n%s", got, status, d.stderr.Bytes())
	}
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

// expect returns the payload of the next frame of a kind. It skips logs and statistics.
func (d *direct) expect(want protocol.Kind) []byte {
	d.t.Helper()
	for {
		kind, payload, err := d.parser.NextFrame()
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
			n, err := d.conn.Read(d.parser.ReadBuffer())
			if err != nil {
				_ = d.cmd.Process.Kill()
				_ = d.cmd.Wait()
				d.t.Fatalf("instead of a %v: %v\n%s", want, err, d.stderr.Bytes())
			}
			d.parser.AdvanceRead(n)
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
