package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/scaler/local"
)

// scaledConfig is for a function that takes a while, in up to three instances of
// one worker each.
const scaledConfig = `
log: {format: text}
drain: 20s
scale:
  clear_within: 2s
  interval: 1s
  scale_in_after: 1s
  idle: 2s
  instances: {min: %d, max: 3}
functions:
  work:
    trigger: {nats: {ack_wait: 10s}}
    handler: {python: {path: ./app, processes: 1, threads: 1}}
    retry: {max_attempts: 2, initial: 10ms}
`

// scaledApp records the attempt and the body of each message that it handles.
const scaledApp = `
import os, time
LOG = os.open(os.path.join(os.path.dirname(__file__), "..", "ended"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def work(message):
    time.sleep(0.02)
    os.write(LOG, b"%d %s\n" % (message.attempt, message.body))
`

type scaled struct {
	dir, file string
	sent      int
}

func newScaled(t *testing.T, least int) *scaled {
	t.Helper()
	dir := write(t, map[string]string{"drover.yaml": fmt.Sprintf(scaledConfig, least), "app/function_app.py": scaledApp})
	return &scaled{dir: dir, file: filepath.Join(dir, "drover.yaml")}
}

func (s *scaled) send(t *testing.T, n int) {
	t.Helper()
	lines := make([]string, n)
	for i := range lines {
		s.sent++
		lines[i] = strconv.Itoa(s.sent)
	}
	if status, _, errs := command(t.Context(), nil, strings.NewReader(strings.Join(lines, "\n")), "send", "work", "-c", s.file); status != 0 {
		t.Fatal(errs)
	}
}

// ended counts the messages that were handled, each once, and the attempts after the first.
func (s *scaled) ended(t *testing.T) (messages, charged int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "ended"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		attempt, body, _ := strings.Cut(line, " ")
		if body == "" {
			continue
		}
		seen[body] = true
		if attempt != "1" {
			charged++
		}
	}
	return len(seen), charged
}

func (s *scaled) allEnd(t *testing.T, out *printed) {
	t.Helper()
	until(t, out, "every message comes to its end", func() bool { n, _ := s.ended(t); return n == s.sent })
}

var readyLine = regexp.MustCompile(`msg="an instance is ready" instance=(\d+) pid=(\d+)`)

// pids returns the processes of all instances that have been ready, from the log.
func pids(t *testing.T, out *printed) (all []int) {
	t.Helper()
	for _, m := range readyLine.FindAllStringSubmatch(out.String(), -1) {
		pid, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, pid)
	}
	return all
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestInstancesFollowTheBacklog(t *testing.T) {
	t.Parallel()
	s := newScaled(t, 0)
	cmd, out, ended := child(t, "run", s.file)
	out.WaitFor(t, "msg=running functions=1 scale=")
	s.send(t, 600) // twelve seconds of work for one worker, to be done in two
	out.WaitFor(t, "an instance is ready\" instance=2")
	status, text, errs := command(t.Context(), nil, nil, "scale", "explain", "--verbose", "-c", s.file)
	if status != 0 || !strings.Contains(text, "instances, decided at") || !strings.Contains(text, "formula: ceil(") {
		t.Errorf("explain: status %d\n%s%s", status, text, errs)
	}
	s.allEnd(t, out)
	out.WaitFor(t, "to=0 bound=formula") // idle
	until(t, out, "all have gone", func() bool {
		for _, pid := range pids(t, out) {
			if !gone(pid) {
				return false
			}
		}
		return true
	})
	s.send(t, 3) // from zero
	s.allEnd(t, out)
	if _, charged := s.ended(t); charged != 0 {
		t.Errorf("%d attempts were charged to messages that only met instances which came and went", charged)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
	if status, _, errs := command(t.Context(), nil, nil, "scale", "explain", "-c", s.file); status != ExitFailed || !strings.Contains(errs, "no daemon of this configuration is running") {
		t.Errorf("explain after the end: status %d, %s", status, errs)
	}
}

// Whichever process is killed, every message is handled, and no process is left over.
func TestKilledInstances(t *testing.T) {
	t.Parallel()
	s := newScaled(t, 2)
	cmd, out, ended := child(t, "run", s.file)
	until(t, out, "two instances", func() bool { return len(pids(t, out)) == 2 })
	s.send(t, 500)
	if err := syscall.Kill(pids(t, out)[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	out.WaitFor(t, "an instance died; it will be replaced")
	s.allEnd(t, out)

	// The parent is killed: its instances drain by themselves.
	s.send(t, 200)
	known := pids(t, out)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	until(t, out, "the instances end without their parent", func() bool {
		for _, pid := range known {
			if !gone(pid) {
				return false
			}
		}
		return true
	})
	cmd, out, ended = child(t, "run", s.file)
	s.allEnd(t, out)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// Of two daemons over one data directory, one scales and the other waits for the lock.
func TestTwoScalers(t *testing.T) {
	t.Parallel()
	s := newScaled(t, 1)
	first, out, ended := child(t, "run", s.file)
	out.WaitFor(t, "msg=running functions=1 scale=")
	second, standby, secondEnded := child(t, "run", s.file)
	standby.WaitFor(t, "another daemon uses this data directory for scaling; standing by")
	third, idle, thirdEnded := child(t, "run", s.file)
	idle.WaitFor(t, "standing by")
	if err := third.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, thirdEnded, idle); status != ExitOK {
		t.Errorf("one that stood by ended with status %d\n%s", status, idle)
	}
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
	standby.WaitFor(t, "msg=running functions=1 scale=")
	s.send(t, 5)
	s.allEnd(t, standby)
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, secondEnded, standby); status != ExitOK {
		t.Errorf("status %d\n%s", status, standby)
	}
}

func TestInstancesThatCannotStart(t *testing.T) {
	t.Parallel()
	s := newScaled(t, 1)
	if err := os.WriteFile(filepath.Join(s.dir, "app", "function_app.py"), []byte("import nothing_like_this\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out, ended := child(t, "run", s.file)
	if status := waitFor(t, ended, out); status != ExitCode {
		t.Errorf("status %d\n%s", status, out)
	}
	for _, part := range []string{"nothing_like_this", "instance 1 ended before it was ready: exit status 5"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the log lacks %q:\n%s", part, out)
		}
	}
}

// A second signal reaches the instances: their messages in flight are interrupted.
func TestInstancesAreHurried(t *testing.T) {
	t.Parallel()
	s := newScaled(t, 1)
	app := "import time\ndef work(body):\n    print('begun', flush=True)\n    time.sleep(60)\n"
	if err := os.WriteFile(filepath.Join(s.dir, "app", "function_app.py"), []byte(app), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out, ended := childOfEachTerm(t, "run", s.file)
	out.WaitFor(t, "msg=running functions=1 scale=")
	s.send(t, 1)
	out.WaitFor(t, "begun")
	for _, said := range []string{"stopping: receiving has ended", "second signal; cancelling"} {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		out.WaitFor(t, said)
	}
	if status := waitFor(t, ended, out); status != ExitCutShort {
		t.Errorf("status %d\n%s", status, out)
	}
}

func TestInstancesNeedAProgramAndAFile(t *testing.T) {
	s := newScaled(t, 1)
	cfg, err := configs.Load(s.file, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	var start *daemon.StartError
	if err := daemon.Run(t.Context(), cfg); !errors.As(err, &start) || !strings.Contains(err.Error(), "the program cannot start them") {
		t.Errorf("without a program: %v", err)
	}
	made := configs.New()
	made.DataDir = t.TempDir()
	made.Functions = map[string]configs.Function{"f": {Trigger: configs.Trigger{NATS: &configs.NATSTrigger{}}, Handler: configs.Handler{Go: "f"}}}
	made.Scale.Instances.Max = 2
	if err := daemon.Run(t.Context(), made, daemon.WithInstances(local.Command{Path: "/bin/true"})); !errors.As(err, &start) || !strings.Contains(err.Error(), "use configs.Load") {
		t.Errorf("without a file: %v", err)
	}
	if status, _, errs := command(t.Context(), nil, nil, "instance"); status != ExitFailed || !strings.Contains(errs, "this command is for drover itself") {
		t.Errorf("drover instance by hand: status %d, %s", status, errs)
	}
}

// If the only message left waits for its retry, it is retried when it is due, though no other
// message arrives.
func TestARetryIsNotForgottenAtZeroInstances(t *testing.T) {
	t.Parallel()
	s := newScaled(t, 0)
	app := strings.Replace(scaledApp, "    time.sleep", "    if message.attempt == 1:\n        raise drover.Retry('later', after=8)\n    time.sleep", 1)
	if err := os.WriteFile(filepath.Join(s.dir, "app", "function_app.py"), []byte("import drover\n"+app), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out, ended := child(t, "run", s.file)
	out.WaitFor(t, "msg=running functions=1 scale=")
	s.send(t, 1)
	until(t, out, "the scaler says what it waits for", func() bool {
		_, text, _ := command(t.Context(), nil, nil, "scale", "explain", "--verbose", "-c", s.file)
		return strings.Contains(text, "delivered and not settled")
	})
	until(t, out, "the retry", func() bool {
		messages, charged := s.ended(t)
		return messages == 1 && charged == 1
	})
	out.WaitFor(t, "to=0 bound=formula")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
