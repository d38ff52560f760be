package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// heldApp prints the message when it begins, and waits until a file exists.
const heldApp = `
import os, time
DIR = os.path.dirname(os.path.abspath(__file__))
def work(message):
    print("begun", message.text(), flush=True)
    while not os.path.exists(os.path.join(DIR, message.text())):
        time.sleep(0.01)
    print("ended", message.text(), flush=True)
`

// A message in flight is explained by the instance that handles it. tail follows the lines of all
// instances, each line once, also of an instance that replaces another.
func TestExplainAndTailInstances(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, strings.Replace(fmt.Sprintf(scaledConfig, 2), "max: 3", "max: 2", 1), heldApp)
	cmd, out, ended := child(t, "run", r.file)
	until(t, out, "two instances", func() bool { return len(pids(t, out)) == 2 })
	r.send("work", "a")
	out.WaitFor(t, "begun a")

	following, leave := context.WithCancel(t.Context())
	defer leave()
	tail, left := newPrinted(), make(chan int, 1)
	go func() {
		left <- Command(following, []string{"tail", "work", "-c", r.file}, &IO{Out: tail, Err: tail, Env: os.LookupEnv, Environ: os.Environ})
	}()
	tail.WaitFor(t, "begun a") // logged before
	r.send("work", "b")        // for the other instance: each has one slot
	tail.WaitFor(t, "begun b")

	instances := make(map[string]string) // by message
	for _, id := range []string{"work:1", "work:2"} {
		status, text, errs := command(t.Context(), nil, nil, "explain", id, "-c", r.file)
		m := regexp.MustCompile(`Message ` + id + ` of function work in instance ([12]) is in flight. It is being handled for \S+, in worker \d+\n`).FindStringSubmatch(text)
		if status != ExitOK || m == nil {
			t.Fatalf("status %d\n%s%s", status, text, errs)
		}
		instances[id] = m[1]
		for _, part := range []string{"the attempt times out in ", "this is attempt 1 of 2"} {
			if strings.Count(text, part) != 1 {
				t.Errorf("it lacks %q, or has it twice:\n%s", part, text)
			}
		}
	}
	if instances["work:1"] == instances["work:2"] {
		t.Errorf("both are in one instance: %v", instances)
	}
	r.send("work", "c")
	until(t, out, "both are full", func() bool {
		_, text, _ := command(t.Context(), nil, nil, "explain", "work", "-c", r.file)
		return strings.Contains(text, "2 instances run the function") && strings.Contains(text, "1 message waits at its source") &&
			strings.Contains(text, "Function work in instance 1 is at its limit") && strings.Contains(text, "Function work in instance 2 is at its limit")
	})
	r.run(ExitOK, "explain work:3", "Message work:3 of function work waits at its source", "behind 0 others")
	r.run(ExitOK, "explain work:99", "Message work:99 was not found")

	// One is killed. The next one has its number, and receives its message.
	if err := syscall.Kill(pids(t, out)[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, out, "a third instance", func() bool { return len(pids(t, out)) == 3 })
	for _, name := range []string{"a", "b", "c"} {
		r.write(filepath.Join("app", name), "")
	}
	for _, name := range []string{"a", "b", "c"} {
		tail.WaitFor(t, "ended "+name)
	}
	// Lines of both instances, in the order of their times.
	status, text, errs := command(t.Context(), nil, nil, "tail", "work", "-c", r.file, "--once", "--last", "3")
	if lines := strings.Split(strings.TrimSpace(text), "\n"); status != ExitOK || len(lines) != 3 || lines[0] > lines[1] || lines[1] > lines[2] {
		t.Errorf("status %d, the last 3 lines are\n%s%s", status, text, errs)
	}
	leave()
	if status := <-left; status != ExitOK {
		t.Errorf("the tail ended with status %d", status)
	}
	seen := tail.String()
	for _, id := range []string{"[1]", "[2]"} {
		if !strings.Contains(seen, "INFO  "+id+" ") {
			t.Errorf("no line of instance %s:\n%s", id, seen)
		}
	}
	lines := make(map[string]bool)
	for line := range strings.Lines(seen) {
		if lines[line] {
			t.Errorf("twice: %s", line)
		}
		lines[line] = true
	}
	if n := strings.Count(seen, "ended "); n != 3 {
		t.Errorf("%d messages ended, of 3:\n%s", n, seen)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
