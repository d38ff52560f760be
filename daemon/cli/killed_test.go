package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// killedConfig is for messages whose lock ends in no test.
const killedConfig = `
log: {format: text}
functions:
  work:
    trigger: {nats: {ack_wait: 1h}}
    handler: {python: {path: ./app, processes: 1, threads: 4}}
`

// killedApp hangs on the first run of each message, and records the second.
const killedApp = `
import os, time
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
def work(message):
    name = os.path.join(HERE, message.body.decode())
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        with open(name + ".done", "x") as f:
            f.write(str(message.attempt))
        return
    time.sleep(3600)
`

// A daemon is killed, and started again: its messages in flight run again at once, although their locks end
// in an hour. No attempt is used, and no process of the first daemon is left.
func TestMessagesOfAKilledDaemonRunAtOnce(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": killedConfig, "app/function_app.py": killedApp})
	file := filepath.Join(dir, "drover.yaml")
	cmd, out, ended := child(t, "run", file)
	out.WaitFor(t, "msg=running")
	names := []string{"one", "two", "three"}
	for _, name := range names {
		if status, _, errs := command(t.Context(), nil, nil, "send", "work", "-c", file, "--body", name); status != ExitOK {
			t.Fatal(errs)
		}
	}
	until(t, out, "all are in flight, and recorded", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, ".drover", "leases", "leases"))
		for _, name := range names {
			if _, running := os.Stat(filepath.Join(dir, name)); running != nil {
				return false
			}
		}
		return err == nil && bytes.Count(text, []byte("$JS.ACK.")) >= len(names)
	})
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended

	cmd, out, ended = child(t, "run", file)
	out.WaitFor(t, "msg=running")
	ready := time.Now()
	for _, name := range names {
		until(t, out, "the second run of "+name, func() bool {
			text, err := os.ReadFile(filepath.Join(dir, name+".done"))
			if err == nil && len(text) > 0 && string(text) != "1" {
				t.Errorf("message %s ran at attempt %s", name, text)
			}
			return err == nil && len(text) > 0
		})
	}
	t.Logf("all ran again %v after the daemon was ready", time.Since(ready))
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
