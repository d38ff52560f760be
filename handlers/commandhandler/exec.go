// Package commandhandler runs a command for each message. The body is the command's
// standard input, its standard output is the function's output, and its
// exit status the verdict, with the names of sysexits.h: 0 is done, 65 (EX_DATAERR)
// rejects, 75 (EX_TEMPFAIL) and all others are failed attempts.
package commandhandler

import (
	"context"
	"encoding/json"
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
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/triggers"
)

// Config configures a Handler.
type Config struct {
	Function string
	// Command is the program and its arguments; no shell reads them.
	Command []string
	Dir     string
	Env     []string
	// MaxOutput bounds its standard output, in bytes; 0 is 1 MiB.
	MaxOutput int64
	// Log receives the lines of its standard error as they are written; nil discards them.
	Log *slog.Logger
	// Reaper starts the command; nil: the handler has one of its own.
	Reaper *childproc.Reaper
}

const (
	dataError = 65 // EX_DATAERR
	// maxDetail bounds the end of its standard error that is kept with a failure, in bytes.
	maxDetail = 8 << 10
	// maxSummary bounds the part of it in the failure's summary line, in bytes.
	maxSummary = 200
	// killGrace is the time between SIGTERM and SIGKILL at the timeout.
	killGrace        = 5 * time.Second
	defaultMaxOutput = 1 << 20
)

// Handler runs commands.
type Handler struct {
	cfg Config
	own *childproc.Reaper // closed with the handler; nil: the Reaper is the caller's
}

var _ handlers.Handler = (*Handler)(nil)

// New returns a handler. It returns an error if the program is not found.
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
	h := &Handler{cfg: cfg}
	if cfg.Reaper == nil {
		h.own = childproc.New(cfg.Log)
		h.cfg.Reaper = h.own
	}
	return h, nil
}

// Close implements handlers.Handler.
func (h *Handler) Close(context.Context) error {
	if h.own != nil {
		h.own.Close()
	}
	return nil
}

// Handle implements handlers.Handler. At the end of ctx the command's process group
// gets SIGTERM, and then SIGKILL; processes that it left behind are always killed.
func (h *Handler) Handle(ctx context.Context, m *triggers.Message) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	out, errs := &head{max: int(h.cfg.MaxOutput)}, &tail{max: maxDetail}
	said := &childproc.Lines{Line: func(line string) {
		h.cfg.Log.LogAttrs(ctx, slog.LevelInfo, line, slog.String("message", m.ID), slog.String("stream", "stderr"))
	}}
	command, err := h.cfg.Reaper.Start(childproc.Command{
		Path: h.cfg.Command[0], Args: h.cfg.Command[1:], Dir: h.cfg.Dir, Env: h.messageEnv(m),
		Stdin: m.Body, Stdout: out, Stderr: io.MultiWriter(errs, said),
	})
	if err != nil {
		return nil, fmt.Errorf("the command does not start: %w: %w", err, handlers.ErrNotTried)
	}
	awaitExit(ctx, command)
	said.FlushRest()
	exit := command.ExitState()
	switch {
	case exit.Err != nil:
		return nil, fmt.Errorf("the command was lost: %w: %w", exit.Err, handlers.ErrRunAgain)
	case exit.Status == 0:
	case ctx.Err() != nil: // one that came to its end in spite of that is done
		return nil, ctx.Err()
	default:
		return nil, h.exitError(exit, errs.String())
	}
	if out.over {
		return nil, fmt.Errorf("the command wrote more than max_output (%d) bytes", h.cfg.MaxOutput)
	}
	return out.kept, nil // nil if nothing was written
}

// messageEnv returns the command's environment, with variables for the message.
func (h *Handler) messageEnv(m *triggers.Message) []string {
	env := append(append([]string(nil), h.cfg.Env...),
		"DROVER_FUNCTION="+h.cfg.Function, "DROVER_MESSAGE_ID="+removeNULs(m.ID), "DROVER_ATTEMPT="+strconv.Itoa(m.Attempt), "DROVER_SUBJECT="+removeNULs(m.Subject))
	known := m.Properties()
	for name, value := range known {
		env = addVariable(env, propertyPrefix+strings.ToUpper(name), value)
	}
	if contentType := m.Property(triggers.ContentType); contentType != known[triggers.ContentType] {
		env = addVariable(env, propertyPrefix+"CONTENT_TYPE", contentType) // of a header
	}
	env = addJSON(env, "DROVER_ATTRIBUTES", m.Attributes, len(m.Attributes))
	env = addJSON(env, "DROVER_REPEATED", m.Repeated, len(m.Repeated))
	if parent, state := m.Trace(); parent != "" {
		env = append(env, "TRACEPARENT="+removeNULs(parent), "TRACESTATE="+removeNULs(state))
	}
	return env
}

const (
	// propertyPrefix begins the names of the variables of a message's properties.
	propertyPrefix = "DROVER_PROPERTY_"
	// maxVariable bounds a variable, in bytes: Linux accepts at most 128 KiB. Longer ones
	// are omitted.
	maxVariable = 64 << 10
)

func addVariable(env []string, name, value string) []string {
	if len(value) > maxVariable {
		return env
	}
	return append(env, name+"="+removeNULs(value))
}

// addJSON adds a variable with a JSON object of n members, if n is not 0.
func addJSON(env []string, name string, value any, n int) []string {
	text, err := json.Marshal(value)
	if n == 0 || err != nil {
		return env
	}
	return addVariable(env, name, string(text))
}

// awaitExit waits for the command's end, and ends it when ctx ends.
func awaitExit(ctx context.Context, command *childproc.Process) {
	select {
	case <-command.Done():
		return
	case <-ctx.Done():
	}
	command.Signal(syscall.SIGTERM)
	limit := time.NewTimer(killGrace)
	defer limit.Stop()
	select {
	case <-command.Done():
		return
	case <-limit.C:
	}
	command.Signal(syscall.SIGKILL)
	<-command.Done()
}

func (h *Handler) exitError(exit childproc.Exit, said string) error {
	f := &handlers.Failure{Summary: "the command ended: " + exit.String(), Detail: triggers.Tail(strings.ToValidUTF8(said, "?"), maxDetail)}
	lines := strings.Split(strings.TrimSpace(f.Detail), "\n")
	if last := lines[len(lines)-1]; last != "" {
		f.Summary += ": " + last[:min(len(last), maxSummary)]
	}
	if exit.Status.ExitStatus() == dataError {
		return handlers.Reject(f)
	}
	return f
}

// removeNULs returns text in a form that the environment can hold.
func removeNULs(text string) string { return strings.ReplaceAll(text, "\x00", "") }

// head is a writer that keeps the first bytes.
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

// tail is a writer that keeps the last bytes.
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
