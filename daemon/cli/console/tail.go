package console

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/drover-run/drover/daemon/cli/messagefile"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// PrintLine prints a line of the log of a function that was requested from a daemon, as text or as a JSON object.
func PrintLine(out io.Writer, style Style, function string, line telemetry.LogLine, asJSON bool) {
	if asJSON {
		if text, err := json.Marshal(line); err == nil { // it was decoded from JSON
			_, _ = fmt.Fprintln(out, string(messagefile.EscapeControls(text)))
		}
		return
	}
	if line.Dropped > 0 {
		_, _ = fmt.Fprintf(out, "... %d lines were dropped: the reader is too slow\n", line.Dropped)
	}
	_, _ = io.WriteString(out, style.For(out).Format(LineOf(function, line)))
}
