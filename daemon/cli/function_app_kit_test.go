package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
	"github.com/drover-run/drover/triggers/storagequeue/azuritetest"
)

// With this file, tests run whole function apps, from testdata/functionapps, with the library. Some
// use Azurite for one version of Python.

// copyApp copies an app of testdata.
func copyApp(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "functionapps", name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// appVariables returns the environment of a command that reads a function app.
func appVariables(environment string, settings ...string) []string {
	port := "ASPNETCORE_URLS=http://127.0.0.1:0" // a free one; a later setting wins
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "VIRTUAL_ENV=" + environment, port}, settings...)
}

// appIO connects a command that reads a function app.
func appIO(out, errs io.Writer, environment string, settings ...string) *IO {
	variables := appVariables(environment, settings...)
	lookup := func(name string) (string, bool) {
		for _, variable := range slices.Backward(variables) {
			if value, found := strings.CutPrefix(variable, name+"="); found {
				return value, true
			}
		}
		return "", false
	}
	return &IO{In: strings.NewReader(""), Out: out, Err: errs, Env: lookup, Environ: func() []string { return variables }}
}

// runApp runs a function app until the test ends.
func runApp(t *testing.T, dir, environment string, settings ...string) (log *printed, stop func() int) {
	t.Helper()
	return startApp(t, environment, []string{"run", dir}, settings...)
}

// startApp runs a command with a function app until the test ends.
func startApp(t *testing.T, environment string, args []string, settings ...string) (log *printed, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	log = newPrinted()
	ended := make(chan int, 1)
	go func() { ended <- Command(ctx, args, appIO(log, log, environment, settings...)) }()
	var once sync.Once
	status := -1
	stop = func() int {
		once.Do(func() { cancel(); status = <-ended })
		return status
	}
	t.Cleanup(func() { stop() })
	return log, stop
}

// runAppChild runs a function app in its own process.
func runAppChild(t *testing.T, dir, environment string, settings ...string) (*exec.Cmd, *printed, <-chan error) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "run", dir)
	cmd.Env = appVariables(environment, settings...)
	return startChild(t, cmd)
}

// appStorage runs a storage account: Azurite for one version of Python, and drover's emulator for the
// other.
func appStorage(t *testing.T, environment string) (connection string) {
	t.Helper()
	if strings.HasSuffix(environment, "3.10") {
		return azuritetest.Start(t).ConnectionString()
	}
	_, connection = storage(t)
	return connection
}

// emulatedStorage runs drover's emulator of a storage account.
func emulatedStorage(t *testing.T) (connection string) {
	t.Helper()
	_, connection = storage(t)
	return connection
}

// queues are the queues of a storage account.
type queues struct {
	connection string
	plain      bool // bodies are text
}

func (q queues) create(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := queueClient(t, q.connection, name).Create(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// put puts messages into a queue.
func (q queues) put(t *testing.T, name string, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if !q.plain {
			body = base64.StdEncoding.EncodeToString([]byte(body))
		}
		if _, err := queueClient(t, q.connection, name).EnqueueMessage(t.Context(), body, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// take waits for messages, and removes them from the queue.
func (q queues) take(t *testing.T, log *printed, name string, count int) (bodies []string) {
	t.Helper()
	until(t, log, fmt.Sprintf("%s has %d messages", name, count), func() bool {
		got, err := queueClient(t, q.connection, name).DequeueMessage(t.Context(), nil)
		if err != nil || len(got.Messages) == 0 {
			return len(bodies) >= count
		}
		m := got.Messages[0]
		body := *m.MessageText
		if !q.plain {
			raw, err := base64.StdEncoding.DecodeString(body)
			if err != nil {
				t.Errorf("%s has %q, which is not base64", name, body)
			}
			body = string(raw)
		}
		if _, err := queueClient(t, q.connection, name).DeleteMessage(t.Context(), *m.MessageID, *m.PopReceipt, &azqueue.DeleteMessageOptions{}); err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, body)
		return len(bodies) >= count
	})
	return bodies
}

// want waits for messages, in any order.
func (q queues) want(t *testing.T, log *printed, name string, want ...string) {
	t.Helper()
	got := q.take(t, log, name, len(want))
	slices.Sort(got)
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		t.Errorf("%s has %q; want %q", name, got, want)
	}
}

// wantEmpty checks that a queue has no messages, also none in flight.
func (q queues) wantEmpty(t *testing.T, log *printed, names ...string) {
	t.Helper()
	for _, name := range names {
		until(t, log, name+" is empty", func() bool {
			got, err := queueClient(t, q.connection, name).GetProperties(t.Context(), nil)
			return err == nil && *got.ApproximateMessagesCount == 0
		})
	}
}

// logLine is a line of the log.
type logLine struct {
	Time                                              time.Time
	Level, Msg, Function, Message, Invocation, Logger string
}

// logLines returns the lines of a log with a text.
func logLines(t *testing.T, log *printed, text string) (out []logLine) {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		var l logLine
		if json.Unmarshal([]byte(line), &l) == nil && strings.Contains(l.Msg, text) {
			out = append(out, l)
		}
	}
	return out
}

// wantLine waits for a line of the log, with its level and its function.
func wantLine(t *testing.T, log *printed, level, function, text string) logLine {
	t.Helper()
	var found logLine
	until(t, log, "a line with "+text, func() bool {
		lines := logLines(t, log, text)
		if len(lines) > 0 {
			found = lines[0]
		}
		return len(lines) > 0
	})
	if found.Level != level || found.Function != function || found.Message == "" {
		t.Errorf("%q has %+v; want level %s and function %s", text, found, level, function)
	}
	return found
}

// wantSpaced checks the times between lines of the log.
func wantSpaced(t *testing.T, lines []logLine, least ...time.Duration) {
	t.Helper()
	if len(lines) != len(least)+1 {
		t.Fatalf("%d lines, want %d: %+v", len(lines), len(least)+1, lines)
	}
	for i, want := range least {
		if pause := lines[i+1].Time.Sub(lines[i].Time); pause < want {
			t.Errorf("%v between %q and %q; want %v at least", pause, lines[i].Msg, lines[i+1].Msg, want)
		}
	}
}

// appNamespace runs an emulated Service Bus namespace.
func appNamespace(t *testing.T, queues map[string]emulator.QueueOptions, subscriptions ...string) (*emulator.Emulator, string) {
	t.Helper()
	e, connection := namespace(t)
	for name, options := range queues {
		if err := e.CreateQueue(name, options); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range subscriptions {
		topic, subscription, _ := strings.Cut(path, "/")
		if err := e.CreateTopic(topic); err != nil {
			t.Fatal(err)
		}
		if err := e.CreateSubscription(topic, subscription, emulator.QueueOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return e, connection
}

// sendToBus sends messages to a queue of a namespace.
func sendToBus(t *testing.T, connection, queue string, messages ...*triggers.Message) {
	t.Helper()
	s, err := servicebus.NewSender(&servicebus.Access{ConnectionString: func() (string, error) { return connection, nil }}, queue)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := s.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Flush(t.Context()), s.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}
