package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/deadletter"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

const deadConfig = `
log: {level: warn}
functions:
  greet:
    trigger: {nats: {}}
    handler: {go: greet}
    retry: {max_attempts: 2, initial: 10ms}
`

// hostile has characters that control a terminal.
const hostile = "\x1b[2Jred\u009b31m\nline"

// rejecting returns functions that reject messages, except those that begin with good.
func rejecting(got *printed) handlers.Funcs {
	return handlers.Funcs{"greet": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		_, _ = fmt.Fprintf(got, "got %s, attempt %d\n", m.Body, m.Attempt)
		switch {
		case strings.HasPrefix(string(m.Body), "good"):
			return nil, nil
		case string(m.Body) == "failing":
			return nil, errors.New("no luck")
		}
		return nil, handlers.Reject(fmt.Errorf("a bad one %s", hostile))
	}}
}

// daemonOf runs a daemon until it is stopped.
func daemonOf(t *testing.T, file string, funcs handlers.Funcs) (stop func()) {
	t.Helper()
	cfg, err := configs.Load(file, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	d := daemon.New(cfg, daemon.WithFuncs(funcs), daemon.WithReady(func() { close(ready) }))
	go func() { ended <- d.Run(ctx) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// dead runs a command and checks its status and a part of its output.
func dead(t *testing.T, file string, status int, want string, args ...string) string {
	t.Helper()
	got, out, errs := command(t.Context(), nil, nil, append(append([]string{"dead"}, args...), "-c", file)...)
	if got != status || !strings.Contains(out+errs, want) {
		t.Errorf("dead %v: status %d, want %d and %q\n%s%s", args, got, status, want, out, errs)
	}
	return out
}

func sendTo(t *testing.T, file string, args ...string) {
	t.Helper()
	if status, out, errs := command(t.Context(), nil, nil, append([]string{"send", "-c", file, "greet"}, args...)...); status != 0 {
		t.Fatalf("send: %s%s", out, errs)
	}
}

// pollInterval is the interval between two commands that wait for something: each takes CPU time.
const pollInterval = 50 * time.Millisecond

// untilDead waits until there are n dead letters, and checks that nothing is printed raw.
func untilDead(t *testing.T, file string, n int) {
	t.Helper()
	want := fmt.Sprintf("%d dead letter", n)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		_, out, errs := command(t.Context(), nil, nil, "dead", "list", "greet", "-c", file)
		if strings.ContainsAny(out+errs, "\x1b\u009b") {
			t.Fatalf("a raw control character: %q", out+errs)
		}
		if strings.Contains(out, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not %s, but\n%s%s", want, out, errs)
		}
	}
}

func TestDeadLettersByCommand(t *testing.T) {
	t.Parallel()
	file := filepath.Join(write(t, map[string]string{"drover.yaml": deadConfig}), "drover.yaml")
	dead(t, file, 0, "no dead letters", "list", "greet")
	dead(t, file, 0, "matched 0, replayed 0, left 0", "replay", "greet", "--all")
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), ".drover", "nats-embedded")); !os.IsNotExist(err) {
		t.Errorf("a look made the store: %v", err)
	}

	got := newPrinted()
	stop := daemonOf(t, file, rejecting(got))
	dead(t, file, 0, "no dead letters", "list", "greet") // their stream does not exist yet
	sendTo(t, file, "--body", "bad", "-H", "who=me")
	sendTo(t, file, "--body", "failing")
	untilDead(t, file, 2)

	all := func() { // with and without a daemon
		t.Helper()
		out := dead(t, file, 0, "2 dead letters\n", "list", "greet")
		if strings.Index(out, "a bad one ?[2Jred?31m line") > strings.Index(out, "failed 2 times, the last time with: no luck") {
			t.Errorf("the oldest is not first:\n%s", out)
		}
		dead(t, file, 0, "1 matching dead letter", "list", "greet", "--reason", "NO LUCK")
		dead(t, file, 0, "1 matching dead letter", "list", "greet", "-a", "who=me")
		dead(t, file, 0, "no matching dead letters", "list", "greet", "-a", "who=you")
		dead(t, file, 0, "2 matching dead letters", "list", "greet", "--after", "1h")
		dead(t, file, 0, "no matching dead letters", "list", "greet", "--before", "1h")
		dead(t, file, 0, "1 dead letter, and maybe more: --limit", "list", "greet", "--limit", "1")
		lines := strings.Split(strings.TrimSpace(dead(t, file, 0, `"body":"failing"`, "list", "greet", "--json")), "\n")
		var first deadletter.JSONLetter
		if err := json.Unmarshal([]byte(lines[0]), &first); err != nil || len(lines) != 2 || first.ID != "1" || first.Body == nil || *first.Body != "bad" || first.Attributes["who"] != "me" ||
			first.Subject != "greet" || first.Attempts != 1 || first.Function != "greet" || first.Died == nil || first.Enqueued == nil {
			t.Errorf("%d lines, %+v, %v", len(lines), first, err)
		}
		out = dead(t, file, 0, "attribute     who = me\n", "show", "greet", "1")
		if strings.ContainsAny(out, "\x1b\u009b") || !strings.Contains(out, "body, 3 bytes:\nbad\n") {
			t.Errorf("%q", out)
		}
		if out := dead(t, file, 0, "bad", "show", "greet", "1", "--body"); out != "bad" {
			t.Errorf("the body is printed as %q", out)
		}
		dead(t, file, 0, `"id":"2"`, "show", "greet", "2", "--json")
		dead(t, file, 0, `"id":"1"`, "show", "greet", first.Message, "--json")
		dead(t, file, 0, "matched 1, would replay 1, did nothing", "replay", "greet", first.Message, "--dry-run")
		dead(t, file, 1, "there is no dead letter 99 of function greet", "show", "greet", "99")
		dead(t, file, 0, "matched 2, would replay 2, did nothing", "replay", "greet", "--all", "--dry-run")
		dead(t, file, 0, "matched 1, would purge 1, did nothing", "purge", "greet", "--id", "2", "--dry-run")
		dead(t, file, 0, "matched 2, would replay 2, did nothing", "replay", "greet", "2", "--id", "1", "--dry-run")
		dead(t, file, 0, "2 dead letters\n", "list", "greet")
	}
	all()
	stop()
	all()
	dead(t, file, 0, "matched 1, replayed 1, left 0", "replay", "greet", "2")
	dead(t, file, 0, "matched 1, purged 1, left 0", "purge", "greet", "--reason", "bad one", "--yes")
	dead(t, file, 0, "no dead letters", "list", "greet")

	// A replayed letter has its two attempts again: replayed while a daemon runs, it is handled a
	// third time.
	daemonOf(t, file, rejecting(got))
	untilDead(t, file, 1)
	dead(t, file, 0, "matched 1, replayed 1, left 0", "replay", "greet", "--all", "--rate", "100/s")
	untilDead(t, file, 1)
	if text := got.String(); strings.Count(text, "got failing, attempt 1") != 3 || strings.Count(text, "got failing, attempt 2") != 3 || strings.Count(text, "got bad") != 1 {
		t.Errorf("it ran as\n%s", text)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".drover", "replays", "*")); err != nil || len(left) != 1 {
		t.Errorf("of the journal is left: %v, %v", left, err) // its lock
	}
}

func TestDeadCommandsThatAreWrong(t *testing.T) {
	file := filepath.Join(write(t, map[string]string{"drover.yaml": deadConfig}), "drover.yaml")
	for args, want := range map[string]string{
		"list gret":                         "there is no function gret in the configuration (did you mean greet?)",
		"list greet --after soon":           `--after is "soon"; write a time as 2026-01-31`,
		"list greet --before=-1h":           `--before is "-1h"`,
		"list greet --after 1h --before 2h": "no time is after --after and before --before",
		"list greet --limit=-1":             "--limit must not be negative",
		"show greet 1 --body --json":        "not both",
		"replay greet":                      "--all replays all of them",
		"purge greet --yes":                 "--all purges all of them",
		"purge greet --all":                 "--yes to purge them",
		"replay greet --all --id 1":         "--all selects all of them",
		"replay greet --all --rate fast":    `--rate is "fast"; write it as 100/s`,
		"replay greet --all --rate 0/s":     `--rate is "0/s"`,
		"replay greet --all --limit=-1":     "--limit must not be negative",
		"replay greet --attribute nonsense": "nonsense",
		"list nobody\x1b[2J":                "there is no function nobody?[2J",
	} {
		status := ExitUsage
		if strings.HasPrefix(args, "list gret ") || strings.Contains(want, "there is no") {
			status = ExitFailed
		}
		dead(t, file, status, want, strings.Fields(args)...)
	}
	out, errs := newPrinted(), newPrinted()
	status := Command(t.Context(), []string{"dead", "show", "greet", "1", "--body", "-c", file}, &IO{Out: out, Err: errs, OutIsTerminal: true, Env: os.LookupEnv})
	if status != ExitUsage || !strings.Contains(errs.String(), "redirect it to a file") {
		t.Errorf("a body on a terminal: %d, %s", status, errs)
	}
}

var summary = regexp.MustCompile(`matched (\d+), replayed (\d+), left (\d+)`)

// A replay that is stopped half way, or killed, and started again sends no letter twice and leaves
// none.
func TestAReplayThatIsCut(t *testing.T) {
	t.Parallel()
	const n = 300
	for name, cut := range map[string]os.Signal{"stopped": syscall.SIGINT, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(write(t, map[string]string{"drover.yaml": deadConfig}), "drover.yaml")
			got := newPrinted()
			stop := daemonOf(t, file, rejecting(got))
			sendTo(t, file, "--count", fmt.Sprint(n))
			untilDead(t, file, 30)
			untilDeadOf(t, file, "greet", n)
			stop()
			before := strings.Count(got.String(), "got ")

			cmd, out, ended := child(t, "dead", "replay", "greet", "--all", "--rate", "150/s", "-c", file)
			journal := filepath.Join(filepath.Dir(file), ".drover", "replays", "greet")
			until(t, out, "it begins", func() bool {
				text, err := os.ReadFile(journal)
				return err == nil && strings.Count(string(text), "end") > 50
			})
			if err := cmd.Process.Signal(cut); err != nil {
				t.Fatal(err)
			}
			status := waitFor(t, ended, out)
			if cut == syscall.SIGINT {
				m := summary.FindStringSubmatch(out.String())
				// The letter that was being sent may be left.
				if status != ExitFailed || m == nil || m[1] != m[2] && m[3] != "1" || m[1] == m[2] && m[3] != "0" || !strings.Contains(out.String(), "stopped before the end; run the same command again for the rest") {
					t.Errorf("status %d: %s", status, out)
				}
			}
			dead(t, file, 0, ", left 0\n", "replay", "greet", "--all")
			dead(t, file, 0, "no dead letters", "list", "greet")
			daemonOf(t, file, rejecting(got))
			got.WaitFor(t, "got 300, attempt 1\n")
			untilDeadOf(t, file, "greet", n)
			text := got.String()
			for i := range n {
				if c := strings.Count(text, fmt.Sprintf("got %d, attempt 1\n", i+1)); c != 2 {
					t.Errorf("message %d ran %d times, want 2: once, and once replayed", i+1, c)
				}
			}
			if after := strings.Count(text, "got "); before != n || after != 2*n {
				t.Errorf("%d ran before and %d after", before, after)
			}
		})
	}
}
