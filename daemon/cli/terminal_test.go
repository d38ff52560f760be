package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/drover-run/drover/daemon/cli/live/livetest"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
)

// terminal is a pseudo-terminal, in which a command runs as a separate process, and its screen.
type terminal struct {
	t      *testing.T
	file   *os.File
	screen *livetest.Screen
	frames chan []string
	ended  chan error
}

func openTerminal(t *testing.T, columns, rows int, dir string, args ...string) *terminal {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), eachTermCounts+"=1", "TERM=xterm-256color", "NO_COLOR=")
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, file: file, screen: livetest.New(columns, rows), frames: make(chan []string, 1000), ended: make(chan error, 1)}
	term.screen.OnFrame = func(lines []string) { term.frames <- lines }
	go func() {
		defer close(term.frames)
		buffer := make([]byte, 32<<10)
		for {
			n, err := file.Read(buffer)
			_, _ = term.screen.Write(buffer[:n])
			if err != nil {
				term.ended <- cmd.Wait()
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has already ended unless the test failed
		for range term.frames {
		}
		_ = file.Close()
	})
	return term
}

// nextFrame returns the screen after the next frame.
func (term *terminal) nextFrame() []string {
	term.t.Helper()
	select {
	case lines, open := <-term.frames:
		if !open {
			term.t.Fatalf("the command has ended:\n%s", strings.Join(term.screen.Lines(), "\n"))
		}
		return lines
	case <-time.After(patience):
		term.t.Fatalf("no frame:\n%s", strings.Join(term.screen.Lines(), "\n"))
	}
	return nil
}

// waitFor waits for a frame with a text.
func (term *terminal) waitFor(text string) []string {
	term.t.Helper()
	late := time.Now().Add(patience)
	for time.Now().Before(late) {
		if lines := term.nextFrame(); strings.Contains(strings.Join(lines, "\n"), text) {
			return lines
		}
	}
	term.t.Fatalf("the screen lacks %q:\n%s", text, strings.Join(term.screen.Lines(), "\n"))
	return nil
}

func (term *terminal) press(keys string) {
	term.t.Helper()
	if _, err := term.file.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) resize(columns, rows int) {
	term.t.Helper()
	term.screen.Resize(columns, rows)
	if err := pty.Setsize(term.file, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		term.t.Fatal(err)
	}
}

// serveStatus serves the admin API of a daemon whose numbers change with each request.
func serveStatus(t *testing.T) (dataDir string, pauses chan string) {
	t.Helper()
	dataDir, err := os.MkdirTemp("", "status") //nolint:usetesting // short: it has a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dataDir) })
	path := admin.SocketPath(dataDir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	pauses = make(chan string, 10)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.StatusPath, func(w http.ResponseWriter, _ *http.Request) {
		n := n.Add(1)
		r := api.StatusReport{Phase: api.PhaseRunning, Since: time.Now().Add(-time.Minute)}
		for i := range 4 {
			backlog := n * n * int64(i)
			f := api.FunctionOverview{Backlog: &backlog, State: []string{api.StateReceiving, api.StateFull, api.StateAppDown, api.StateIdle}[(int(n)/20+i)%4]}
			f.Name, f.Handler, f.Done, f.Workers = fmt.Sprintf("function-%d", i), fmt.Sprintf("python function_app.f%d in app /srv/apps/shop", i), n*int64(100*i), i
			if f.State == api.StateAppDown {
				f.Reason = "its app is down: connection refused, which is described with so many words that they do not fit"
			}
			r.Functions = append(r.Functions, f)
		}
		_ = json.NewEncoder(w).Encode(r)
	})
	mux.HandleFunc("POST "+api.PausePattern, func(w http.ResponseWriter, r *http.Request) {
		pauses <- r.PathValue("name")
		_ = json.NewEncoder(w).Encode(api.Health{Status: "ok"})
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return dataDir, pauses
}

// checkStatus reports whether a screen has one complete table of the four functions, without remains of
// earlier frames.
func checkStatus(lines []string, columns, rows int) error {
	if len(lines) != rows || !strings.HasPrefix(lines[0], "running, for ") || !strings.HasPrefix(lines[1], "  function  ") || !strings.HasPrefix(lines[rows-1], "q quit") {
		return fmt.Errorf("%d rows, want %d", len(lines), rows)
	}
	values := len(strings.Fields(strings.NewReplacer("in flight", "inflight").Replace(lines[1])))
	for i := range 4 {
		row := lines[2+i]
		if !strings.HasPrefix(strings.TrimLeft(row, "▸ "), fmt.Sprintf("function-%d ", i)) {
			return fmt.Errorf("row %d is %q", i, row)
		}
		got := strings.NewReplacer("app down", "appdown", "▸ ", "", fmt.Sprintf("python function_app.f%d in app shop", i), "handler").Replace(row)
		if n := len(strings.Fields(got)); n != values {
			return fmt.Errorf("%d values in %d columns: %q", n, values, row)
		}
	}
	for _, line := range lines[6 : rows-1] {
		if strings.Contains(line, "function-") && !strings.Contains(line, "its app is down") || len([]rune(line)) > columns {
			return fmt.Errorf("the remains of an earlier frame: %q", line)
		}
	}
	return nil
}

// A hundred frames of drover status with a resize in the middle, in a real terminal: no row is wrapped,
// and no remains of earlier frames are visible.
func TestStatusOnATerminal(t *testing.T) {
	t.Parallel()
	for _, columns := range []int{60, 80, 100, 160} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			t.Parallel()
			dataDir, pauses := serveStatus(t)
			term := openTerminal(t, columns, 20, dataDir, "status", "--data-dir", dataDir, "--every", "10ms")
			width := columns
			for n := range 100 {
				if n == 50 {
					width = columns - 15
					term.resize(width, 18)
					for checkStatus(term.nextFrame(), width, 18) != nil { // frames drawn for the previous size
					}
				}
				rows := 20
				if n >= 50 {
					rows = 18
				}
				if err := checkStatus(term.nextFrame(), width, rows); err != nil {
					t.Fatalf("frame %d: %v\n%s", n, err, strings.Join(term.screen.Lines(), "\n"))
				}
			}
			if !term.screen.InAlternate() || term.screen.CursorVisible() {
				t.Error("it does not use the alternate screen")
			}
			term.press("\x1b[B")
			term.waitFor("▸ function-1")
			term.press("p")
			term.waitFor("esc: cancel")
			term.press("\r")
			if name := <-pauses; name != "function-1" {
				t.Errorf("paused %s", name)
			}
			term.press("/n-3\r")
			term.waitFor(`filter "n-3"`)
			term.press("q")
			for range term.frames {
			}
			if err := <-term.ended; err != nil {
				t.Error(err)
			}
			if last := term.screen.Lines(); term.screen.InAlternate() || !term.screen.CursorVisible() || !strings.HasPrefix(last[0], "running, for ") {
				t.Errorf("after the end:\n%s", strings.Join(last, "\n"))
			}
		})
	}
}

// The complete table of the demo stays on the terminal, above the last lines.
func TestDemoOnATerminal(t *testing.T) {
	t.Parallel()
	term := openTerminal(t, 80, 40, t.TempDir(), "demo", "--messages", "600")
	first := term.waitFor("fetch ")
	term.press("keys that nobody asked for\r")
	term.resize(66, 40)
	frames := 0
	for lines := range term.frames {
		frames++
		for _, line := range lines {
			if strings.Contains(line, "keys that") {
				t.Errorf("keys show: %q", line)
			}
		}
	}
	if err := <-term.ended; err != nil {
		t.Error(err)
	}
	last := strings.Join(term.screen.Lines(), "\n")
	if frames == 0 || !strings.HasPrefix(first[0], "drover demo  ") || strings.Count(last, "drover demo  ") != 1 || strings.Count(last, "\nfetch ") != 1 || !strings.Contains(last, ", lost 0, in ") {
		t.Errorf("%d frames, the last screen:\n%s", frames, last)
	}
	if !term.screen.CursorVisible() {
		t.Error("the cursor is hidden")
	}
}

func TestStatusWatch(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--watch", "--once"}, {"--watch", "--json"}} {
		if status, _, errs := command(t.Context(), nil, nil, append([]string{"status"}, args...)...); status != ExitUsage || !strings.Contains(errs, "--watch cannot be combined") {
			t.Errorf("%q: status %d, %s", args, status, errs)
		}
	}
	dataDir, _ := serveStatus(t)
	out, stop := startCommand(t, "status", "--data-dir", dataDir, "--watch", "--every", "10ms")
	out.WaitFor(t, "\n\nrunning, for ")
	if status := stop(); status != ExitOK || strings.Contains(out.String(), "\x1b") {
		t.Errorf("status %d\n%s", status, out)
	}
}
