package invoke

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/dispatch"
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
	Outputs          []NamedOutput       `json:"outputs,omitempty"`   // messages to named outputs
	Log              []Line              `json:"log"`
	Took             float64             `json:"took_seconds"`

	printed
}

// printed is what only the text of a report uses.
type printed struct {
	verdict triggers.Verdict
	output  []byte
	notSent string // why the output is not sent, if it has no destination
	took    time.Duration

	didNotLoad bool
}

// NamedOutput is a message for a named output.
type NamedOutput struct {
	Name       string              `json:"name"`
	Body       *string             `json:"body,omitempty"`
	BodyBytes  string              `json:"body_base64,omitempty"` // of a body that is not text
	Properties triggers.Properties `json:"properties,omitempty"`
	To         string              `json:"to"` // where a daemon would send it

	body []byte
}

// addNamed adds the messages to named outputs.
func (r *Report) addNamed(all []dispatch.NamedMessage) {
	for _, m := range all {
		out := NamedOutput{Name: m.Output, Properties: m.Properties, body: m.Body}
		out.Body, out.BodyBytes = encodeBody(m.Body)
		r.Outputs = append(r.Outputs, out)
	}
}

// SetDestinations sets where a daemon would send the function's result.
func (r *Report) SetDestinations(f configs.Function) {
	outputs := f.Output
	var plain []string
	if f.Trigger.HTTP != nil {
		plain = append(plain, "the client, as the response")
	}
	for _, o := range outputs {
		if o.Name == "" {
			plain = append(plain, o.String())
		}
		for i := range r.Outputs {
			if r.Outputs[i].Name == o.Name {
				r.Outputs[i].To = o.String()
			}
		}
	}
	r.OutputTo, r.notSent = strings.Join(plain, " and "), "the function has no output in the configuration"
	if len(outputs) > 0 {
		r.notSent = "each output of the function has a name, and receives only messages for that name"
	}
}

// encodeBody returns a body for JSON: as text, or else in base64.
func encodeBody(body []byte) (text *string, base string) {
	if utf8.Valid(body) {
		text := string(body)
		return &text, ""
	}
	return nil, base64.StdEncoding.EncodeToString(body)
}

// setResult sets the verdict and what led to it.
func (r *Report) setResult(v triggers.Verdict, output []byte, err error, took time.Duration) {
	r.verdict, r.output, r.took = v, output, took
	r.Verdict, r.Delay, r.Reason, r.Took = v.Kind.String(), v.Delay.Seconds(), v.Reason, took.Seconds()
	if err != nil {
		r.Error = err.Error()
		var loadError *handlers.LoadError
		if errors.As(err, &loadError) {
			r.Detail, r.didNotLoad = loadError.Detail, true
		}
		var failure *handlers.Failure
		if errors.As(err, &failure) {
			r.Detail = failure.Detail
		}
	}
	if output != nil {
		r.Output, r.OutputBytes = encodeBody(output)
	}
}

// DidNotLoad reports whether the function's code did not load.
func (r *Report) DidNotLoad() bool { return r.didNotLoad }

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

// PrintText writes the function's output to out unchanged, and the rest to errs, without control
// characters. If out is a terminal, the output is printed without them, too.
func (r *Report) PrintText(out, errs io.Writer, outIsTerminal bool) error {
	printLine := func(format string, args ...any) {
		_ = term.Print(errs, term.Printable(fmt.Sprintf(format, args...))+"\n")
	}
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
	for _, o := range r.Outputs {
		printLine("%s", o)
	}
	switch {
	case r.verdict.Kind != triggers.Done, r.output == nil && len(r.Outputs) > 0:
	case r.output == nil:
		printLine("output: none")
	case r.OutputTo == "":
		printLine("output: %d bytes, not sent: %s", len(r.output), r.notSent)
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

// maxShown bounds how much of a message is printed, in bytes.
const maxShown = 10_000

// String describes the message in one line, which ends with its body.
func (o NamedOutput) String() string {
	text := fmt.Sprintf("output to %s: %d bytes", o.To, len(o.body))
	for _, name := range slices.Sorted(maps.Keys(o.Properties)) {
		text += fmt.Sprintf(", %s=%s", name, o.Properties[name])
	}
	shown := string(o.body)
	if len(shown) > maxShown {
		shown = strings.ToValidUTF8(shown[:maxShown], "") + "..."
	}
	return text + ": " + shown
}
