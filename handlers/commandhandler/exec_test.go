package commandhandler

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/triggers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shell is a handler that runs a script.
func shell(t *testing.T, script string, change func(c *Config)) *Handler {
	t.Helper()
	cfg := Config{Function: "f", Command: []string{"sh", "-c", script}, Dir: t.TempDir(), Env: []string{"PATH=" + os.Getenv("PATH"), "LANG=C"}}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

func TestWhatTheCommandSees(t *testing.T) {
	h := shell(t, `cat; echo " $DROVER_FUNCTION $DROVER_MESSAGE_ID $DROVER_ATTEMPT $DROVER_SUBJECT"`, nil)
	out, err := h.Handle(t.Context(), &triggers.Message{ID: "a\x00b", Body: []byte("body"), Attempt: 2, Subject: "s; rm"})
	if err != nil || string(out) != "body f ab 2 s; rm\n" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := shell(t, "true", nil).Handle(t.Context(), &triggers.Message{Body: make([]byte, 1<<20)}); err != nil || out != nil {
		t.Errorf("one that reads nothing: %q, %v", out, err)
	}
}

func TestPropertiesInTheEnvironment(t *testing.T) {
	h := shell(t, `echo "$DROVER_PROPERTY_CONTENT_TYPE $DROVER_PROPERTY_REPLY_TO $DROVER_ATTRIBUTES $DROVER_REPEATED"`, nil)
	m := &triggers.Message{
		ID: "m", Attributes: map[string]string{"a": "1"}, Repeated: map[string][]string{"a": {"1", "2"}}, Origin: triggers.Known{triggers.ContentType: "text/csv", triggers.ReplyTo: "answers"},
	}
	if out, err := h.Handle(t.Context(), m); err != nil || string(out) != `text/csv answers {"a":"1"} {"a":["1","2"]}`+"\n" {
		t.Errorf("%q, %v", out, err)
	}
	m = &triggers.Message{ID: "m", Attributes: map[string]string{"Content-Type": "text/html"}}
	if out, err := h.Handle(t.Context(), m); err != nil || string(out) != `text/html  {"Content-Type":"text/html"} `+"\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestWhatItsStatusMeans(t *testing.T) {
	for script, want := range map[string]string{
		"echo no >&2; exit 65": "reject", "exit 75": "retry", "exit 1": "retry", "kill -9 $$": "retry",
	} {
		_, err := shell(t, script, nil).Handle(t.Context(), &triggers.Message{})
		got := "retry"
		if handlers.Rejected(err) {
			got = "reject"
		}
		if err == nil || got != want || errors.Is(err, handlers.ErrNotTried) {
			t.Errorf("%s: %s, %v; want %s", script, got, err, want)
		}
	}
	_, err := shell(t, "echo first >&2; echo 'no such order' >&2; exit 65", nil).Handle(t.Context(), &triggers.Message{})
	var f *handlers.Failure
	if !errors.As(err, &f) || f.Summary != "the command ended: exit status 65: no such order" || f.Detail != "first\nno such order" {
		t.Errorf("%+v", f)
	}
}

// At the end the whole process group is killed, including processes that the command left behind.
func TestTheTimeoutEndsTheGroup(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	h := shell(t, "(trap '' TERM; sleep 60; echo x > "+mark+") & wait", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := h.Handle(ctx, &triggers.Message{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 50*time.Second { // its sleep takes 60
		t.Errorf("it took %v", took)
	}
}

func TestLongOutputs(t *testing.T) {
	h := shell(t, "head -c 100000 /dev/zero", func(c *Config) { c.MaxOutput = 1000 })
	if _, err := h.Handle(t.Context(), &triggers.Message{}); err == nil || !strings.Contains(err.Error(), "more than max_output (1000) bytes") {
		t.Errorf("got %v", err)
	}
	_, err := shell(t, "head -c 100000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1", nil).Handle(t.Context(), &triggers.Message{})
	var f *handlers.Failure
	if !errors.As(err, &f) || len(f.Detail) > maxDetail || !strings.HasSuffix(f.Detail, "end") {
		t.Errorf("the detail has %d bytes", len(f.Detail))
	}
}

func TestACommandThatIsNotThere(t *testing.T) {
	for _, command := range [][]string{nil, {"no-such-program-here"}} {
		if _, err := New(Config{Command: command}); err == nil {
			t.Errorf("%v: no error", command)
		}
	}
}

// Its standard error is logged line by line as it is written, regardless of length and content.
func TestStandardErrorIsLogged(t *testing.T) {
	var log bytes.Buffer
	h := shell(t, `printf 'one\n\n\ntwo\r\n' >&2; head -c 40000 /dev/zero | tr '\0' x >&2; printf '\nlast \377' >&2; cat`,
		func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	out, err := h.Handle(t.Context(), &triggers.Message{ID: "m 1", Body: []byte("body")})
	if err != nil || string(out) != "body" {
		t.Fatalf("%q, %v", out, err)
	}
	got := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(got) != 6 {
		t.Fatalf("%d lines: %.2000s", len(got), log.String())
	}
	for i, want := range []string{"msg=one message=\"m 1\" stream=stderr", "msg=two ", "msg=" + strings.Repeat("x", childproc.MaxLine) + " ", "msg=" + strings.Repeat("x", childproc.MaxLine) + " ", "msg=" + strings.Repeat("x", 40000-2*childproc.MaxLine) + " ", `msg="last ?"`} {
		if !strings.Contains(got[i], want) {
			t.Errorf("line %d is %.200s, want %.100s in it", i, got[i], want)
		}
	}
}
