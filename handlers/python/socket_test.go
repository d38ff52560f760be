package python

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/triggers"
)

// A function can access the worker's socket, like everything in its process. If it damages the
// socket, its own call ends, the worker is replaced, and the next call runs.
func TestAFunctionThatMeddlesWithTheSocket(t *testing.T) {
	t.Parallel()
	const (
		done    = `struct.pack("<IBIBIII", 18, 68, %s, 0, 0, 0, 0)` // a RESULT: done
		timeout = time.Second
	)
	for name, test := range map[string]struct {
		code  string
		want  string // of the call's error; "" where it is done
		cause process.Cause
		ways  int // 1 is inline alone, 3 is every way
	}{
		"closes it":                 {"os.close(3)", "did a function close it?", process.CauseExit, 3},
		"closes it and stays":       {"os.close(3); time.sleep(60)", "", "", 1},
		"shuts it down":             {"socket.socket(fileno=os.dup(3)).shutdown(socket.SHUT_RDWR)", "", "", 1},
		"puts a file there":         {"os.dup2(os.open(os.devnull, os.O_RDWR), 3)", "did a function close it?", process.CauseExit, 1},
		"half a frame, and on":      {`os.write(3, struct.pack("<IB", 500, 68))`, context.DeadlineExceeded.Error(), process.CauseTimeout, 3},
		"half a frame, then an end": {`os.write(3, struct.pack("<IB", 500, 68)); os._exit(1)`, "exit status 1", process.CauseExit, 1},
		"half a small frame":        {`os.write(3, struct.pack("<IB", 9, 68))`, "it broke the protocol", process.CauseProtocol, 1},
		"half a huge frame":         {`os.write(3, struct.pack("<IB", 100 << 20, 68))`, context.DeadlineExceeded.Error(), process.CauseTimeout, 1},
		"answers twice":             {"os.write(3, " + fmt.Sprintf(done, "0") + ")", "", process.CauseProtocol, 3},
		"answers for another":       {"os.write(3, " + fmt.Sprintf(done, "77") + ")", "an answer to invocation 77", process.CauseProtocol, 1},
		"an unknown status":         {`os.write(3, struct.pack("<IBIBIII", 18, 68, 0, 99, 0, 0, 0))`, "a RESULT of status 99", process.CauseProtocol, 1},
		"a failure of no JSON":      {`os.write(3, struct.pack("<IBIBIII", 20, 68, 0, 1, 0, 0, 0) + b"no")`, "a RESULT that is no JSON", process.CauseProtocol, 1},
		"a state that is cut off":   {`os.write(3, struct.pack("<IBIBIII", 20, 68, 0, 5, 0, 0, 0) + b"no")`, "a RESULT with a state, of 2 bytes", process.CauseProtocol, 1},
		"reads what is not for it":  {"socket.socket(fileno=os.dup(3)).setblocking(False); os.set_blocking(3, False); beside(3)", "", "", 3},
	} {
		for _, way := range everyWay[:test.ways] {
			t.Run(name+"/"+way.name, func(t *testing.T) {
				t.Parallel()
				p := startApp(t, fmt.Sprintf(`
import os, socket, struct, time
def beside(fd):
    try: os.read(fd, 1)
    except BlockingIOError: pass
    os.set_blocking(fd, True)
%sdef f(body):
    if body == b"meddle": %s
    return "fine"
`, way.prefix, test.code), func(c *workers.Config) { c.Settings.Threads, c.KillGrace = way.threads, 200*time.Millisecond }, "f")
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				output, err := handle(ctx, handler(t, p, "f"), &triggers.Message{Body: []byte("meddle")})
				text := fmt.Sprint(err)
				var failure *handlers.Failure
				if errors.As(err, &failure) {
					text += failure.Detail
				}
				if !strings.Contains(text, test.want) || err == nil && string(output) != "fine" && !strings.HasPrefix(name, "answers twice") {
					t.Errorf("%s, %s; want %q", output, text, test.want)
				}
				if test.cause != "" {
					eventually(t, "a restart for "+string(test.cause), func() bool { return p.Stats().Restarts[test.cause] == 1 })
				}
				eventually(t, "a call that is done", func() bool {
					got, err := call(t, p, "f", &triggers.Message{})
					return err == nil && string(got) == "fine"
				})
			})
		}
	}
}

// errTimedOut is the cause with which tests cancel calls.
var errTimedOut = errors.New("its time is up")
