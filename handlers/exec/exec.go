// Package exec is the handler that runs a command for each message: the body on its
// standard input, what it writes to standard output the function's output, and its
// exit status the verdict, by the names of sysexits.h: 0 is done, 65 (EX_DATAERR)
// rejects, 75 (EX_TEMPFAIL) and all others are failed attempts.
package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Config is a handler.
type Config struct {
	Function string
	// Command is the program and its arguments; no shell reads them.
	Command []string
	Dir     string
	Env     []string
	// MaxOutput bounds what it may write to standard output, in bytes; 1 MiB.
	MaxOutput int64
	// Log takes the lines of its standard error as they come; nil drops them.
	Log *slog.Logger
}

const (
	dataError = 65 // EX_DATAERR
	// maxDetail is how much of its standard error is kept of a failure: the end.
	maxDetail = 8 << 10
	// maxSummary is how much of that is in the failure's one line.
	maxSummary = 200
	// killGrace is how long it has to obey a SIGTERM at the timeout.
	killGrace        = 5 * time.Second
	defaultMaxOutput = 1 << 20
	// maxLine is how long a line in the log may be, in bytes: it is cut in several.
	maxLine = 16 << 10
)

// Handler runs commands.
type Handler struct{ cfg Config }

var _ handlers.Handler = (*Handler)(nil)

// New returns a handler. The error says that the program is not there.
func New(cfg Config) (*Handler, error) {
	if len(cfg.Command) == 0 {
		return nil, errors.New("the command is empty")
	}
	if cfg.MaxOutput <= 0 {
		cfg.MaxOutput = defaultMaxOutput
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	path, err := exec.LookPath(cfg.Command[0])
	if err != nil {
		return nil, fmt.Errorf("the command %q cannot be run: %w", cfg.Command[0], err)
	}
	cfg.Command = append([]string{path}, cfg.Command[1:]...)
	return &Handler{cfg}, nil
}

// Close implements handlers.Handler.
func (h *Handler) Close(context.Context) error { return nil }

// Handle implements handlers.Handler. At the end of ctx the command's process group
// gets SIGTERM, and then SIGKILL; what it left behind is killed in any case.
func (h *Handler) Handle(ctx context.Context, m *triggers.Message) ([]byte, error) {
	cmd := exec.CommandContext(ctx, h.cfg.Command[0], h.cfg.Command[1:]...)
	cmd.Dir = h.cfg.Dir
	cmd.Env = append(append([]string(nil), h.cfg.Env...),
		"DROVER_FUNCTION="+h.cfg.Function, "DROVER_MESSAGE_ID="+clean(m.ID), "DROVER_ATTEMPT="+strconv.Itoa(m.Attempt), "DROVER_SUBJECT="+clean(m.Subject))
	if parent, state := m.Trace(); parent != "" {
		cmd.Env = append(cmd.Env, "TRACEPARENT="+clean(parent), "TRACESTATE="+clean(state))
	}
	cmd.Stdin = bytes.NewReader(m.Body)
	out, errs := &head{max: int(h.cfg.MaxOutput)}, &tail{max: maxDetail}
	said := &lines{log: func(line string) {
		h.cfg.Log.LogAttrs(ctx, slog.LevelInfo, line, slog.String("message", m.ID), slog.String("stream", "stderr"))
	}}
	cmd.Stdout, cmd.Stderr = out, io.MultiWriter(errs, said)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killGrace
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the command does not start: %w: %w", err, handlers.ErrNotTried)
	}
	err := cmd.Wait()
	said.end()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	switch {
	case err != nil && ctx.Err() != nil: // one that came to its end in spite of that is done
		return nil, ctx.Err()
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return nil, h.failure(err, errs.String())
	case out.over:
		return nil, fmt.Errorf("the command wrote more than max_output (%d) bytes", h.cfg.MaxOutput)
	}
	return out.kept, nil // nil where nothing was written
}

func (h *Handler) failure(err error, said string) error {
	f := &handlers.Failure{Summary: "the command ended: " + err.Error(), Detail: triggers.Tail(strings.ToValidUTF8(said, "?"), maxDetail)}
	lines := strings.Split(strings.TrimSpace(f.Detail), "\n")
	if last := lines[len(lines)-1]; last != "" {
		f.Summary += ": " + last[:min(len(last), maxSummary)]
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == dataError {
		return handlers.Reject(f)
	}
	return f
}

// clean is a text that the environment can hold.
func clean(text string) string { return strings.ReplaceAll(text, "\x00", "") }

// head keeps the beginning of what is written.
type head struct {
	kept []byte
	max  int
	over bool
}

func (w *head) Write(p []byte) (int, error) {
	n := min(len(p), w.max-len(w.kept))
	w.kept = append(w.kept, p[:n]...)
	w.over = w.over || n < len(p)
	return len(p), nil
}

// tail keeps the end of what is written.
type tail struct {
	kept []byte
	max  int
}

func (w *tail) Write(p []byte) (int, error) {
	w.kept = append(w.kept, p...)
	if over := len(w.kept) - w.max; over > 0 {
		w.kept = append(w.kept[:0], w.kept[over:]...)
	}
	return len(p), nil
}

func (w *tail) String() string { return string(w.kept) }

// lines cuts what is written into lines.
type lines struct {
	log  func(line string)
	rest []byte
}

func (w *lines) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		at := bytes.IndexByte(w.rest, '\n')
		if at < 0 && len(w.rest) < maxLine {
			return len(p), nil
		}
		if at < 0 || at > maxLine {
			w.put(w.rest[:maxLine])
			w.rest = w.rest[maxLine:]
			continue
		}
		w.put(w.rest[:at])
		w.rest = w.rest[at+1:]
	}
}

// end logs a line that nobody ended.
func (w *lines) end() {
	w.put(w.rest)
	w.rest = nil
}

func (w *lines) put(line []byte) {
	if text := strings.TrimRight(string(line), "\r"); strings.TrimSpace(text) != "" {
		w.log(strings.ToValidUTF8(text, "?"))
	}
}
