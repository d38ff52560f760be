package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/daemon/cli/messagefile"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// captured returns the messages that a capture has written, as texts.
func captured(t *testing.T, path string) (out []string) {
	t.Helper()
	got, err := messagefile.ReadPath(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got.All {
		out = append(out, fmt.Sprintf("%s %q %v", m.Subject, m.Body, m.Attributes))
	}
	return out
}

func TestCapture(t *testing.T) {
	dir := write(t, map[string]string{"drover.yaml": "log: {level: warn}\nfunctions: {greet: {trigger: {nats: {}}, handler: {go: greet}}}\n", "messages": "one\n\xff\x00\n\x1b[2J\u009b\n"})
	file := filepath.Join(dir, "drover.yaml")
	capture := func(status int, want string, args ...string) string {
		t.Helper()
		got, out, errs := command(t.Context(), nil, nil, append([]string{"capture", "-c", file}, args...)...)
		if got != status || !strings.Contains(errs, want) {
			t.Errorf("capture %v: status %d, want %d and %q\n%s%s", args, got, status, want, out, errs)
		}
		return out
	}
	path := filepath.Join(dir, "greet.jsonl")
	capture(1, "no messages are waiting for function greet", "greet", "--output", path)
	if _, err := os.Stat(filepath.Join(dir, ".drover", "nats-embedded")); !os.IsNotExist(err) {
		t.Errorf("a look made the store: %v", err)
	}
	if status, out, errs := command(t.Context(), nil, nil, "send", "-c", file, "greet", "--lines", filepath.Join(dir, "messages"), "-H", "who=me"); status != 0 {
		t.Fatalf("send: %s%s", out, errs)
	}
	all := []string{`greet "one" map[who:me]`, `greet "\xff\x00" map[who:me]`, `greet "\x1b[2J\u009b" map[who:me]`}

	capture(0, "captured 3 messages into "+path+": no more wait", "greet", "--output", path)
	if got := captured(t, path); strings.Join(got, "\n") != strings.Join(all, "\n") {
		t.Errorf("it has %q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	capture(1, "already exists", "greet", "--output", path, "--count", "1")
	if got := captured(t, path); len(got) != 3 {
		t.Errorf("it was changed: %q", got)
	}
	if err := os.Chmod(path, 0o644); err != nil { // the file must be readable for others
		t.Fatal(err)
	}
	capture(0, "captured 2 messages into "+path+"\n", "greet", "--output", path, "--count", "2", "--force")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || len(captured(t, path)) != 2 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if out := capture(0, "captured 3 messages", "greet", "--output", "-"); strings.ContainsAny(out, "\x1b\u009b") || strings.Count(out, "\n") != 3 {
		t.Errorf("it prints %q", out)
	}
	t.Chdir(t.TempDir())
	capture(0, "into greet.jsonl", "greet")
	capture(1, "writing messages", "greet", "--output", "nowhere/x.jsonl")
	capture(1, "did you mean greet?", "gret")
	capture(2, "--count must be at least 1", "greet", "--count", "0")

	// While a daemon handles a message, capture shows it like the others, and the function
	// receives all.
	got, release := newPrinted(), make(chan struct{})
	stop := daemonOf(t, file, handlers.Funcs{"greet": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		_, _ = fmt.Fprintf(got, "got %q, attempt %d\n", m.Body, m.Attempt)
		<-release
		return nil, nil
	}})
	got.WaitFor(t, `got "one", attempt 1`)
	capture(0, "captured 3 messages", "greet", "--output", path, "--force")
	close(release)
	got.WaitFor(t, `got "\x1b[2J\u009b", attempt 1`)
	stop()
	if text := got.String(); strings.Count(text, "attempt 1") != 3 || strings.Count(text, "\n") != 3 {
		t.Errorf("the function had\n%s", text)
	}
	capture(1, "no messages are waiting", "greet", "--output", path, "--force")
	if len(captured(t, path)) != 3 {
		t.Error("nothing was captured, and the file that was there is gone")
	}
}

// The command works in the same way for all sources. A timer has no messages to capture.
func TestCaptureOfATimer(t *testing.T) {
	dir := write(t, map[string]string{"drover.yaml": "version: 1\nfunctions:\n  clean: {trigger: {timer: {schedule: \"0 0 3 * * *\"}}, handler: {exec: {command: [\"true\"]}}}\n"})
	status, _, errs := command(t.Context(), nil, nil, "capture", "clean", "-c", filepath.Join(dir, "drover.yaml"))
	if status != 1 || !strings.Contains(errs, "is run by a timer, which receives no messages; to run it now: drover invoke") {
		t.Errorf("status %d: %s", status, errs)
	}
}

func TestCaptureOnAzure(t *testing.T) {
	t.Parallel()
	_, bus := namespace(t)
	_, store := storage(t)
	dir := write(t, map[string]string{"bus": bus, "store": store, "drover.yaml": `
connections:
  bus: {connection_string: "file:bus"}
  store: {connection_string: "file:store"}
functions:
  orders: {trigger: {servicebus: {}}, handler: {go: greet}}
  billing: {trigger: {servicebus: {topic: events}}, handler: {go: greet}}
  images: {trigger: {storage_queue: {create: true}}, handler: {go: greet}}
  sessions: {trigger: {servicebus: {queue: sessions, sessions: true}}, handler: {go: greet}}
`})
	file, path := filepath.Join(dir, "drover.yaml"), filepath.Join(dir, "captured")
	for f, want := range map[string]string{"orders": "captured 40 messages: no more wait", "billing": "captured 40 messages", "images": "captured 32 messages: a storage queue shows no more than its first 32"} {
		if status, out, errs := command(t.Context(), nil, nil, "send", "-c", file, f, "--count", "40"); status != 0 {
			t.Fatalf("send: %s%s", out, errs)
		}
		status, out, errs := command(t.Context(), nil, nil, "capture", f, "-c", file, "--output", path, "--force")
		if want = strings.Replace(want, "messages:", "messages into "+path+":", 1); f == "images" {
			want = "captured 32 messages: a storage queue"
		}
		if status != 0 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: status %d, want %q\n%s", f, status, want, errs)
		}
		if got := captured(t, path); len(got) < 32 || f != "images" && !strings.Contains(got[31], `"32"`) { // those are sent in many lanes
			t.Errorf("%s: %q", f, got)
		}
	}
	status, _, errs := command(t.Context(), nil, nil, "capture", "sessions", "-c", file, "--output", path, "--force")
	if status != ExitFailed || !strings.Contains(errs, "sessions has sessions") {
		t.Errorf("status %d\n%s", status, errs)
	}
}
