package daemontest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// Terminal is a pseudo-terminal in which a program runs. A test types into it and reads the screen.
type Terminal struct {
	t        *testing.T
	keyboard *os.File
	screen   *Output
	read     int // the part of the screen that Expect has returned
	ended    chan error
}

// StartTerminal runs a command in a new terminal.
func StartTerminal(t *testing.T, cmd *exec.Cmd) *Terminal {
	t.Helper()
	keyboard, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 160})
	if err != nil {
		t.Fatal(err)
	}
	own := &Terminal{t: t, keyboard: keyboard, screen: NewOutput(), ended: make(chan error, 1)}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		buffer := make([]byte, 4096)
		for {
			n, err := keyboard.Read(buffer)
			_, _ = own.screen.Write(buffer[:n]) // it never fails
			if err != nil {
				return // Linux reports the end of the program as an error
			}
		}
	}()
	go func() {
		err := cmd.Wait()
		<-copied
		own.ended <- err
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		select {
		case <-copied:
		case <-time.After(Patience):
			t.Error("the terminal is still open")
		}
		_ = keyboard.Close()
	})
	return own
}

// Type types a text.
func (s *Terminal) Type(text string) {
	s.t.Helper()
	if _, err := s.keyboard.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// Expect waits for a text after its last match, and returns everything up to the end of the text.
func (s *Terminal) Expect(text string) string {
	s.t.Helper()
	deadline := time.After(Patience)
	for {
		rest := s.screen.String()[s.read:]
		if at := strings.Index(rest, text); at >= 0 {
			s.read += at + len(text)
			return rest[:at+len(text)]
		}
		select {
		case <-s.screen.more:
		case err := <-s.ended:
			s.ended <- err
			if strings.Contains(s.screen.String()[s.read:], text) {
				continue
			}
			s.t.Fatalf("%q did not appear, and the program has ended (%v); the screen is\n%s", text, err, s.screen)
		case <-deadline:
			s.t.Fatalf("%q did not appear; the screen is\n%s", text, s.screen)
		}
	}
}

// Text returns all output of the program so far.
func (s *Terminal) Text() string { return s.screen.String() }

// Wait waits for the end of the program. It returns its exit status, and the output that Expect has not
// returned.
func (s *Terminal) Wait() (status int, rest string) {
	s.t.Helper()
	select {
	case err := <-s.ended:
		s.ended <- err
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			status = exit.ExitCode()
		} else if err != nil {
			s.t.Fatal(err)
		}
		return status, s.screen.String()[s.read:]
	case <-time.After(Patience):
		s.t.Fatalf("the program did not end; the screen is\n%s", s.screen)
		return 0, ""
	}
}
