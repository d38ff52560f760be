package timer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func directory(t testing.TB, dir string) *Directory {
	t.Helper()
	d, err := NewDirectory(filepath.Join(dir, "timers"), "clean", slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func always(State) bool { return true }

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	one, two := directory(t, dir), directory(t, dir)
	if s, leased, err := one.ReadState(t.Context()); err != nil || leased || s.Schedule != "" {
		t.Errorf("a new timer has the state %+v, %v, %v", s, leased, err)
	}
	_, held, err := one.AcquireLease(t.Context(), always)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := two.AcquireLease(t.Context(), always); !errors.Is(err, ErrLeased) {
		t.Errorf("leased twice: %v", err)
	}
	if err := held.RenewLease(t.Context()); err != nil {
		t.Error(err)
	}
	at := time.Now().Add(-time.Hour).Round(0)
	if _, leased, err := two.ReadState(t.Context()); err != nil || !leased {
		t.Errorf("it is leased: %v, %v", leased, err)
	}
	s := State{Schedule: "x", Next: at, Last: at, Updated: at, Failed: &FailedRun{Due: at, Failures: 2, RetryAt: at}}
	if err := held.EndLease(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	got, leased, err := two.ReadState(t.Context())
	if err != nil || leased || !got.Next.Equal(at) || got.Failed == nil || got.Failed.Failures != 2 {
		t.Errorf("the state is %+v, %v, %v", got, leased, err)
	}
	if _, held, err := two.AcquireLease(t.Context(), func(s State) bool { return s.Schedule != "x" }); err != nil || held != nil {
		t.Errorf("leased although it is not due: %v", err)
	}
	if _, held, err = two.AcquireLease(t.Context(), always); err != nil {
		t.Fatal(err)
	}
	if err := held.EndLease(t.Context(), s); err != nil {
		t.Error(err)
	}
}

func TestDirectoryDamaged(t *testing.T) {
	d := directory(t, t.TempDir())
	if err := os.WriteFile(d.path, []byte(`{"schedule": "x`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, held, err := d.AcquireLease(t.Context(), always)
	if err != nil || s.Schedule != "" {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := held.EndLease(t.Context(), State{Schedule: "y"}); err != nil {
		t.Fatal(err)
	}
	if s, _, err := d.ReadState(t.Context()); err != nil || s.Schedule != "y" {
		t.Errorf("%+v, %v", s, err)
	}
}

// A directory that cannot be written fails the settlement, which keeps the lease.
func TestDirectoryUnwritable(t *testing.T) {
	dir := t.TempDir()
	d := directory(t, dir)
	_, held, err := d.AcquireLease(t.Context(), always)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.path+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := held.EndLease(t.Context(), State{}); err == nil {
		t.Error("written where it cannot be")
	}
	if _, _, err := directory(t, dir).AcquireLease(t.Context(), always); !errors.Is(err, ErrLeased) {
		t.Errorf("the lease has ended: %v", err)
	}
	if err := os.Remove(d.path + ".new"); err != nil {
		t.Fatal(err)
	}
	if err := held.EndLease(t.Context(), State{}); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewDirectory(filepath.Join(dir, "file"), "clean", slog.Default()); err == nil {
		t.Error("a file is a directory")
	}
}

const holdIn = "DROVER_TEST_HOLD_TIMER_IN"

// TestHoldLease is the process that TestDirectoryKilled kills.
func TestHoldLease(t *testing.T) {
	dir := os.Getenv(holdIn)
	if dir == "" {
		t.Skip("it is a part of TestDirectoryKilled")
	}
	if _, _, err := directory(t, dir).AcquireLease(context.Background(), always); err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdout.WriteString("held\n")
	_, _ = io.ReadAll(os.Stdin) // until it is killed
}

// The lease of a process that is killed ends at once.
func TestDirectoryKilled(t *testing.T) {
	dir := t.TempDir()
	holder := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHoldLease$")
	holder.Env = append(os.Environ(), holdIn+"="+dir)
	if _, err := holder.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for buffer := make([]byte, 100); !strings.Contains(said.String(), "held"); {
		n, err := out.Read(buffer)
		said.Write(buffer[:n])
		if err != nil {
			t.Fatalf("%v: %s", err, said.String())
		}
	}
	d := directory(t, dir)
	if _, _, err := d.AcquireLease(t.Context(), always); !errors.Is(err, ErrLeased) {
		t.Errorf("another process has it: %v", err)
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait()
	_, held, err := d.AcquireLease(t.Context(), always)
	if err != nil {
		t.Fatalf("its holder was killed: %v", err)
	}
	if err := held.EndLease(t.Context(), State{}); err != nil {
		t.Error(err)
	}
}
