package cli

import "testing"

// A message that has killed its worker runs alone in a new one, also if the imports of the code take
// longer than the timeout of the function.
func TestImportsLongerThanTheTimeout(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, `
log: {format: text}
functions:
  one:
    trigger: {nats: {}}
    handler: {python: {path: ./app, processes: 1, threads: 1}}
    timeout: 200ms
    retry: {initial: 10ms}
`, `
import os, time
time.sleep(1)
def one(message):
    if message.attempt == 1: os._exit(3)
    print("handled by attempt", message.attempt)
`)
	out, stop := startCommand(t, "run", r.file)
	out.WaitFor(t, "msg=running")
	r.send("one", "x")
	out.WaitFor(t, "handled by attempt 2")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
