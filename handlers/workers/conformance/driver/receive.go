package driver

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

// errSilent is the error of a receive without a frame.
var errSilent = errors.New("nothing more came")

// receiveFrame returns the next frame that is not a LOG, STATS, ALIVE or IMPORTED. Those it checks
// and adds to Received. The error is io.EOF if the worker closed its socket, and errSilent at the
// end of the check's time.
func (w *Worker) receiveFrame() (protocol.Kind, []byte, error) {
	for {
		kind, payload, err := w.parser.NextFrame()
		if err != nil {
			w.FailBy(RuleSizes, err.Error(), "a frame within its bounds")
		}
		if kind != 0 {
			w.log.addCame(fmt.Sprintf("%v %s", kind, describeFrame(kind, payload)))
			if !observeFrame(w, kind, payload) {
				return kind, payload, nil
			}
			continue
		}
		n, err := w.Process.conn.Read(w.parser.ReadBuffer())
		w.parser.AdvanceRead(n)
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded), w.ctx.Err() != nil:
			return 0, nil, errSilent
		case err != nil:
			return 0, nil, io.EOF // or a reset: it ended with unread data
		}
	}
}

// describeFrame returns a frame's payload as text for messages.
func describeFrame(kind protocol.Kind, payload []byte) string {
	if kind != protocol.Result {
		return Excerpt(payload)
	}
	r, err := protocol.ReadResult(payload)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d, status %d: %s", r.ID, r.Status, Excerpt(r.Payload))
}
