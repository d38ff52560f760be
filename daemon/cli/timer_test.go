package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
)

// timerConfig has a timer that is due each second, and one that runs at the start: it does not end
// the first time.
const timerConfig = `
log: {format: text}
%s
functions:
  tick:
    trigger: {timer: {schedule: "* * * * * *"%s}}
    handler: {exec: {command: [sh, -c, 'echo "$$DROVER_MESSAGE_ID" >> ticks']}}
  first:
    trigger: {timer: {schedule: "0 0 0 1 1 *", run_on_startup: true%s}}
    handler: {exec: {command: [sh, -c, 'echo begun >> first; test "$$(wc -l < first)" -gt 1 || exec sleep 600']}}
`

// lines returns the lines of a file; none if it is missing.
func lines(t *testing.T, path string) (out []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		out = append(out, strings.TrimSpace(line))
	}
	return out
}

// Of several instances, one runs each occurrence, with each kind of store. A killed instance leaves
// its run to another.
func TestTimerOfInstances(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		store func(t *testing.T) (connections, keys string)
	}{
		"data directory": {func(*testing.T) (string, string) { return "", "" }},
		"NATS": {func(*testing.T) (string, string) {
			return "connections: {local: {nats: embedded}}", ", connection: local, group: shop, lease: 2s"
		}},
		"storage queue": {func(t *testing.T) (string, string) {
			e := emulator.New(emulator.Options{})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- e.Serve(l) }()
			t.Cleanup(func() {
				if err := errors.Join(e.Close(), <-served); err != nil {
					t.Error(err)
				}
			})
			return fmt.Sprintf("connections: {store: {connection_string: %q}}", emulator.ConnectionString(l.Addr().String())), ", connection: store, group: shop, lease: 2s"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			connections, keys := test.store(t)
			text := fmt.Sprintf(timerConfig, connections+"\nscale: {instances: {min: 3, max: 3}}", keys, keys)
			dir := write(t, map[string]string{"drover.yaml": text})
			file := filepath.Join(dir, "drover.yaml")
			cmd, out, ended := child(t, "run", file)
			ticks, first := filepath.Join(dir, "ticks"), filepath.Join(dir, "first")
			until(t, out, "the timers run", func() bool {
				return len(pids(t, out)) == 3 && len(lines(t, ticks)) > 3 && len(lines(t, first)) == 1
			})
			until(t, out, "the status shows when the timer is due", func() bool {
				status, text, errs := command(t.Context(), nil, nil, "status", "-c", file)
				return status == 0 && errs == "" && strings.Contains(text, "function tick: its timer is due at ")
			})
			known := pids(t, out)
			for _, pid := range known {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			before := len(lines(t, ticks))
			until(t, out, "the run that was killed is repeated, and the schedule continues", func() bool {
				return len(lines(t, first)) > 1 && len(lines(t, ticks)) > before+3
			})
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if status := waitFor(t, ended, out); status != ExitOK {
				t.Errorf("status %d\n%s", status, out)
			}
			all := lines(t, ticks)
			if repeated := len(all) - len(slices.Compact(slices.Sorted(slices.Values(all)))); repeated > len(known) {
				t.Errorf("%d occurrences were repeated after %d kills: %v", repeated, len(known), all)
			}
			if n := len(lines(t, first)); n != 2 {
				t.Errorf("the run at the start ran %d times", n)
			}
		})
	}
}

// An occurrence that was missed while no daemon ran is made up for at the next start.
func TestTimerIsPastDue(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": `
log: {format: text}
functions:
  yearly:
    trigger: {timer: {schedule: "0 0 0 1 1 *"}}
    handler: {exec: {command: [sh, -c, 'cat >> runs; echo >> runs']}}
`})
	file, runs := filepath.Join(dir, "drover.yaml"), filepath.Join(dir, "runs")
	state := filepath.Join(dir, ".drover", "timers", "yearly.json")
	run := func(reached func() bool) {
		t.Helper()
		cmd, out, ended := child(t, "run", file)
		until(t, out, "the timer is there", reached)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended
	}
	run(func() bool { return len(lines(t, state)) > 0 })
	if len(lines(t, runs)) > 0 {
		t.Fatal("it ran before it was due")
	}
	text, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	year := time.Now().UTC().Year()
	missed := strings.Replace(string(text), fmt.Sprintf(`"next":"%d-`, year+1), fmt.Sprintf(`"next":"%d-`, year), 1)
	if missed == string(text) {
		t.Fatalf("the state is %s", text)
	}
	if err := os.WriteFile(state, []byte(missed), 0o600); err != nil {
		t.Fatal(err)
	}
	run(func() bool {
		now := lines(t, state)
		return len(lines(t, runs)) > 0 && len(now) > 0 && strings.Contains(now[0], `"last"`)
	})
	run(func() bool { return true })
	if got := lines(t, runs); len(got) != 1 || !strings.Contains(got[0], `"IsPastDue":true`) {
		t.Errorf("it ran as %q", got)
	}
}

func TestTimerCommands(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"drover.yaml": `
functions:
  clean:
    trigger: {timer: {schedule: "0 0 22-2 * * *", timezone: Europe/Berlin}}
    handler: {exec: {command: [cat]}}
  span:
    trigger: {timer: {schedule: "00:05:00"}}
    handler: {exec: {command: [cat]}}
`})
	file := filepath.Join(dir, "drover.yaml")
	for _, test := range []struct {
		args   []string
		status int
		want   []string
	}{
		{[]string{"check", file}, 0, []string{"timer 0 0 22-2 * * *, in Europe/Berlin", "timer, 00:05:00 after each run", "does not pass the end of the day", ":00:00 CE"}},
		{[]string{"invoke", "clean", "-c", file}, 0, []string{`{"Schedule":{"AdjustForDST":true},"ScheduleStatus":{"Last":"0001-01-01T00:00:00Z","Next":"`, `"IsPastDue":false}`, "verdict: done"}},
		{[]string{"invoke", "clean", "--body", "mine", "-c", file}, 0, []string{"mine"}},
		{[]string{"send", "clean", "--body", "x", "-c", file}, ExitFailed, []string{"function clean is run by a timer, which receives no messages; to run it now: drover invoke"}},
		{[]string{"dead", "list", "clean", "-c", file}, 0, []string{"no dead letters"}},
	} {
		status, out, errs := command(t.Context(), nil, nil, test.args...)
		if status != test.status {
			t.Errorf("%s: status %d\n%s%s", test.args, status, out, errs)
		}
		for _, want := range test.want {
			if !strings.Contains(out+errs, want) {
				t.Errorf("%s: it lacks %q\n%s%s", test.args, want, out, errs)
			}
		}
	}
	_, out, _ := command(t.Context(), nil, nil, "check", file)
	if n := strings.Count(out, "\n  due "); n != 5 {
		t.Errorf("check prints %d occurrences\n%s", n, out)
	}
	if _, err := os.Stat(filepath.Join(dir, ".drover")); !os.IsNotExist(err) {
		t.Errorf("a command made the data directory: %v", err)
	}
	if _, err := configs.Load(file, os.LookupEnv); err != nil {
		t.Error(err)
	}
}
