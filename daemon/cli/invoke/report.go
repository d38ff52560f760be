package invoke

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// Report is the result of an invocation, as --json prints it.
type Report struct {
	Function         string              `json:"function"`
	Handler          string              `json:"handler"`
	Message          string              `json:"message"`
	Attempt          int                 `json:"attempt"`
	MaxAttempts      int                 `json:"max_attempts"`
	Verdict          string              `json:"verdict"` // done, retry, reject or release
	Delay            float64             `json:"retry_after_seconds,omitempty"`
	Reason           string              `json:"reason,omitempty"`
	Error            string              `json:"error,omitempty"`
	Detail           string              `json:"detail,omitempty"` // the traceback
	Output           *string             `json:"output,omitempty"`
	OutputBytes      string              `json:"output_base64,omitempty"` // of an output that is not text
	OutputProperties triggers.Properties `json:"output_properties,omitempty"`
	OutputTo         string              `json:"output_to,omitempty"` // where a daemon would send it
	Log              []Line              `json:"log"`
	Took             float64             `json:"took_seconds"`

	verdict triggers.Verdict
	output  []byte
	took    time.Duration
}

// setResult sets the verdict and what led to it.
func (r *Report) setResult(v triggers.Verdict, output []byte, err error, took time.Duration) {
	r.verdict, r.output, r.took = v, output, took
	r.Verdict, r.Delay, r.Reason, r.Took = v.Kind.String(), v.Delay.Seconds(), v.Reason, took.Seconds()
	if err != nil {
		r.Error = err.Error()
		var loadError *handlers.LoadError
		if errors.As(err, &loadError) {
			r.Detail = loadError.Detail
		}
		var failure *handlers.Failure
		if errors.As(err, &failure) {
			r.Detail = failure.Detail
		}
	}
	switch {
	case output == nil:
	case utf8.Valid(output):
		text := string(output)
		r.Output = &text
	default:
		r.OutputBytes = base64.StdEncoding.EncodeToString(output)
	}
}

// IsDone reports whether the verdict is done.
func (r *Report) IsDone() bool { return r.verdict.Kind == triggers.Done }

// WriteJSON writes the report as JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// PrintText writes the function's output to out as it is, and the rest to errs, without control
// characters. If out is a terminal, the output is printed without them, too.
func (r *Report) PrintText(out, errs io.Writer, outIsTerminal bool) error {
	printLine := func(format string, args ...any) { fmt.Fprintln(errs, term.Printable(fmt.Sprintf(format, args...))) }
	if r.Detail != "" {
		printLine("%s", strings.TrimRight(r.Detail, "\n"))
	}
	if r.Error != "" && r.verdict.Kind != triggers.Reject { // otherwise the error is the reason
		printLine("error: %s", r.Error)
	}
	text := r.Verdict
	switch r.verdict.Kind {
	case triggers.Retry:
		text = fmt.Sprintf("retry, after %v", r.verdict.Delay.Round(time.Millisecond))
	case triggers.Reject:
		text = "reject, to the dead letters: " + r.Reason
	case triggers.Release:
		text = "release: it would be released without using an attempt"
	}
	printLine("verdict: %s (attempt %d of %d, took %v)", text, r.Attempt, r.MaxAttempts, r.took.Round(10*time.Microsecond))
	switch {
	case r.verdict.Kind != triggers.Done:
	case r.output == nil:
		printLine("output: none")
	case r.OutputTo == "":
		printLine("output: %d bytes, which go nowhere: the function has no output in the configuration", len(r.output))
	default:
		printLine("output: %d bytes, which would go to %s", len(r.output), r.OutputTo)
	}
	if len(r.output) == 0 {
		return nil
	}
	if outIsTerminal {
		_, err := fmt.Fprintln(out, strings.TrimSuffix(term.Printable(string(r.output)), "\n"))
		return err
	}
	_, err := out.Write(r.output)
	return err
}
