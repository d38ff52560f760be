package configs

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/readfile"
)

const smallest = "functions:\n  f:\n    trigger: {nats: {}}\n    handler: {go: g}\n"

// TestFileValuesOfNoRegularFile uses file: with files that are endless, or that block.
func TestFileValuesOfNoRegularFile(t *testing.T) {
	dir := t.TempDir()
	fifo, link, huge := filepath.Join(dir, "fifo"), filepath.Join(dir, "link"), filepath.Join(dir, "huge")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fifo, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(huge, make([]byte, readfile.MaxValue+1), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	for name, want := range map[string]string{
		fifo: "it is a FIFO", link: "it is a FIFO", dir: "it is a directory", "/dev/zero": "it is a device",
		filepath.Join(dir, "socket"): "it is a socket", huge: "more than 65536 bytes",
	} {
		_, err := Parse("x.yaml", []byte(smallest+"admin: {token: \"file:"+name+"\"}\n"), dir, environment())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("file:%s: %v; it should say %q", name, err, want)
		}
	}
}

// TestPlainTextHasNoAliases reads a file that any YAML decoder can read.
func TestPlainTextHasNoAliases(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(file, []byte("a: &a [x]\nb: *a\n"+smallest), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := readfile.Plain(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := decode.CheckPlain(text); err == nil || !strings.Contains(err.Error(), "alias") {
		t.Errorf("CheckPlain: %v", err)
	}
}

// TestProblemsAreBounded parses a file full of errors.
func TestProblemsAreBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString(smallest)
	for i := range 2000 {
		_, _ = fmt.Fprintf(&text, "key%d: 1\n", i)
	}
	text.WriteString(strings.Repeat("x", 300_000) + ": 1\n")
	_, err := Parse("x.yaml", []byte(text.String()), ".", environment())
	if err == nil {
		t.Fatal("it was read")
	}
	if said := err.Error(); len(said) > 1<<20 || !strings.Contains(said, "more problems follow") {
		t.Errorf("%d bytes: %.300s", len(said), said)
	}
	_, err = Parse("x.yaml", []byte(smallest+strings.Repeat("y", 300_000)+": 1\n"), ".", environment())
	if err == nil || len(err.Error()) > 10_000 {
		t.Errorf("a long key: %.300v", err)
	}
}

func TestNames(t *testing.T) {
	for _, of := range []string{
		"functions:\n  \"a/b\":\n    trigger: {nats: {}}\n    handler: {go: g}\n",
		smallest + "connections:\n  \"a/b\": {nats: embedded}\n",
		smallest + "apps:\n  \"a/b\": {path: .}\n",
	} {
		if _, err := Parse("x.yaml", []byte(of), ".", environment()); err == nil || !strings.Contains(err.Error(), "has a dot or a slash") {
			t.Errorf("%s\n%v", of, err)
		}
	}
	made := New()
	made.Functions = map[string]Function{"a\u202eb": {Trigger: Trigger{NATS: &NATSTrigger{}}, Handler: Handler{Go: "g"}}}
	if err := made.Complete(environment()); err == nil {
		t.Error("a program's configuration has a name with a mark of direction")
	}
}

// TestRootReadsOnlyWhatNobodyElseCanWrite checks owners and modes, also of links.
func TestRootReadsOnlyWhatNobodyElseCanWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root refuses; run the tests as root")
	}
	change := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	// made creates a directory with a configuration, in the form of a ConfigMap's volume:
	// drover.yaml -> ..data/drover.yaml, ..data -> ..1/.
	made := func() (top, real string) {
		top = filepath.Join(t.TempDir(), "etc")
		real = filepath.Join(top, "..1", "drover.yaml")
		change(os.MkdirAll(filepath.Dir(real), 0o755), os.WriteFile(real, []byte(smallest), 0o644), os.Chmod(top, 0o755),
			os.Symlink("..1", filepath.Join(top, "..data")), os.Symlink("..data/drover.yaml", filepath.Join(top, "drover.yaml")))
		return top, real
	}
	for name, c := range map[string]struct {
		change func(top, real string)
		want   string
	}{
		"as a ConfigMap":                {func(string, string) {}, ""},
		"readable by all":               {func(_, real string) { change(os.Chmod(real, 0o444)) }, ""},
		"in a sticky directory":         {func(top, _ string) { change(os.Chmod(top, 0o777|os.ModeSticky)) }, ""},
		"the file, written by all":      {func(_, real string) { change(os.Chmod(real, 0o646)) }, "can be written by all users"},
		"the file, written by a group":  {func(_, real string) { change(os.Chown(real, 0, 100), os.Chmod(real, 0o664)) }, "can be written by group 100"},
		"the file, of another":          {func(_, real string) { change(os.Chown(real, 1000, 0)) }, "belongs to user 1000"},
		"its directory, of another":     {func(_, real string) { change(os.Chown(filepath.Dir(real), 1000, 0)) }, "belongs to user 1000"},
		"the link's directory, by all":  {func(top, _ string) { change(os.Chmod(top, 0o757)) }, "can be written by all users"},
		"the link's directory, another": {func(top, _ string) { change(os.Chown(top, 1000, 0)) }, "belongs to user 1000"},
	} {
		top, real := made()
		c.change(top, real)
		_, err := Load(filepath.Join(top, "drover.yaml"), environment())
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "chown root "+top) || !strings.Contains(err.Error(), "chmod go-w")):
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nobody can change files that are mounted read-only, whatever their modes, such as those of a
	// ConfigMap's volume (0777).
	top, _ := made()
	if err := syscall.Mount(top, top, "", syscall.MS_BIND, ""); err != nil {
		t.Logf("a read-only mount was not tried: %v", err)
		return
	}
	defer func() { change(syscall.Unmount(top, syscall.MNT_DETACH)) }()
	change(os.Chmod(top, 0o777), syscall.Mount("", top, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	if _, err := Load(filepath.Join(top, "drover.yaml"), environment()); err != nil {
		t.Errorf("mounted read-only: %v", err)
	}
}

// TestAConfigurationThroughAPipe reads a configuration from a pipe, and checks that a signal ends
// the wait for one that never arrives.
func TestAConfigurationThroughAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	path := fmt.Sprintf("/proc/self/fd/%d", r.Fd())
	if _, err := w.WriteString(smallest); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if _, err := Load(path, environment()); err != nil {
		t.Error(err)
	}
	r2, w2, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r2.Close(), w2.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := LoadContext(ctx, fmt.Sprintf("/proc/self/fd/%d", r2.Fd()), environment()); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("a pipe without an end: %v", err)
	}
}
