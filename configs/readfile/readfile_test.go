package readfile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func accept(string, *os.File) error { return nil }

func writeFile(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestValue(t *testing.T) {
	for text, want := range map[string]string{"secret": "secret", "secret\n": "secret", "secret\r\n": "secret", "two\nlines\n": "two\nlines", "": ""} {
		path := writeFile(t, "value", []byte(text))
		for name, dir := range map[string]string{path: "/nowhere", "value": filepath.Dir(path)} {
			if got, err := Value(name, dir); err != nil || got != want {
				t.Errorf("%q by %s: %q, %v", text, name, got, err)
			}
		}
	}
	large := writeFile(t, "large", make([]byte, MaxValue+1))
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		large: "it has more than 65536 bytes", t.TempDir(): "it is a directory; use a regular file", fifo: "it is a FIFO; use a regular file",
		"/dev/null": "it is a device", "/nowhere/at-all": "no such file",
	} {
		if got, err := Value(path, ""); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q, %v; want %s", path, got, err, want)
		}
	}
}

func TestConfig(t *testing.T) {
	path := writeFile(t, "drover.yaml", []byte("version: 1\n"))
	text, dir, err := Config(t.Context(), path, accept)
	if err != nil || string(text) != "version: 1\n" || dir != filepath.Dir(path) {
		t.Errorf("%q in %s, %v", text, dir, err)
	}
	if text, err := Plain(path); err != nil || string(text) != "version: 1\n" {
		t.Errorf("plain: %q, %v", text, err)
	}
	refusal := errors.New("not this one")
	if _, _, err := Config(t.Context(), path, func(string, *os.File) error { return refusal }); !errors.Is(err, refusal) {
		t.Errorf("refused: %v", err)
	}
	if _, _, err := Config(t.Context(), filepath.Join(dir, "other.yaml"), accept); err == nil || !strings.Contains(err.Error(), `or run "drover init"`) {
		t.Errorf("no file: %v", err)
	}
	large := writeFile(t, "drover.yaml", make([]byte, MaxConfig+1))
	if _, _, err := Config(t.Context(), large, accept); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("a large file: %v", err)
	}
}

// Reading a pipe without a writer ends with the context.
func TestConfigThroughAPipe(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "drover.yaml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if text, _, err := Config(ctx, fifo, accept); err == nil {
		t.Errorf("without a writer: %q", text)
	}
	writer, err := os.OpenFile(fifo, os.O_RDWR, 0) // a writer that waits for no reader
	if err != nil {
		t.Fatal(err)
	}
	// The pipe is written to once it is open for reading: a pipe that nobody has open loses its bytes.
	written := make(chan error, 1)
	write := func(string, *os.File) error {
		go func() {
			_, err := writer.WriteString("version: 1\n")
			written <- errors.Join(err, writer.Close())
		}()
		return nil
	}
	text, _, err := Config(t.Context(), fifo, write)
	if wrong := errors.Join(err, <-written); wrong != nil || string(text) != "version: 1\n" {
		t.Errorf("%q, %v", text, wrong)
	}
}
