package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

func TestHealthCommand(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef0123"
	socket, port, off := t.TempDir(), freePort(t), freePort(t)
	stops := []func(){
		busyDaemon(t, func(cfg *configs.Config) { cfg.DataDir = socket }),
		busyDaemon(t, func(cfg *configs.Config) { cfg.Admin = configs.Admin{Listen: port, Token: token} }),
		busyDaemon(t, func(cfg *configs.Config) {
			cfg.Admin, cfg.Probes = configs.Admin{Listen: "off"}, configs.Probes{Listen: off}
		}),
	}
	const functions = "\nfunctions: {f: {trigger: {nats: {}}, handler: {exec: {command: [\"true\"]}}}}\n"
	_, probesPort, _ := net.SplitHostPort(off)
	dir := write(t, map[string]string{
		"socket.yaml": "data_dir: " + socket + functions,
		"port.yaml":   fmt.Sprintf("admin: {listen: %q, token: %q}", port, token) + functions,
		"wrong.yaml":  fmt.Sprintf("admin: {listen: %q, token: %q}", port, strings.Repeat("x", 20)) + functions,
		"probes.yaml": fmt.Sprintf("admin: {listen: off}\nprobes: {listen: %q}", "0.0.0.0:"+probesPort) + functions,
		"off.yaml":    "admin: {listen: off}" + functions,
		"bad.yaml":    "functons: {}",
	})
	ask := func(wantStatus int, want string, args ...string) {
		t.Helper()
		for i, a := range args {
			if strings.HasSuffix(a, ".yaml") {
				args[i] = "--config=" + filepath.Join(dir, a)
			}
		}
		status, out, errs := command(t.Context(), nil, nil, append([]string{"health"}, args...)...)
		if status != wantStatus || !strings.Contains(out+errs, want) {
			t.Errorf("health %v: status %d, want %d and %q\n%s%s", args, status, wantStatus, want, out, errs)
		}
	}
	for _, args := range [][]string{{"socket.yaml"}, {"--data-dir", socket}, {"port.yaml"}, {"probes.yaml"}, {"socket.yaml", "--live"}} {
		ask(ExitOK, "ok", args...)
	}
	ask(ExitFailed, "401 Unauthorized", "wrong.yaml")
	ask(ExitFailed, "admin.listen is off", "off.yaml")
	ask(ExitFailed, "did you mean functions?", "bad.yaml")
	ask(ExitFailed, "no daemon of this configuration is running here", "--data-dir", t.TempDir())

	for _, stop := range stops {
		stop()
	}
	for _, args := range [][]string{{"socket.yaml"}, {"--data-dir", socket}, {"port.yaml"}, {"probes.yaml"}} {
		ask(ExitFailed, "not ready: it is stopping", args...)
	}
	ask(ExitOK, "ok", "socket.yaml", "--live") // it is live, and must not be killed
}

// busyDaemon runs a daemon with a message in flight until the test ends. stop starts a stop, and
// returns when the daemon is stopping; the stop waits for the message.
func busyDaemon(t *testing.T, change func(cfg *configs.Config)) (stop func()) {
	t.Helper()
	queue := memory.New(time.Hour)
	t.Cleanup(queue.Close)
	cfg := configs.New()
	cfg.DataDir = t.TempDir()
	cfg.Functions = map[string]configs.Function{"f": {Trigger: configs.Trigger{NATS: &configs.NATSTrigger{}}, Handler: configs.Handler{Go: "f"}}}
	change(cfg)
	began, finish, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	running, cancel := context.WithCancel(context.Background())
	d := daemon.New(cfg, daemon.WithTrigger("f", queue.Trigger()), daemon.WithFuncs(handlers.Funcs{"f": func(context.Context, *triggers.Message) ([]byte, error) {
		close(began)
		<-finish
		return nil, nil
	}}))
	queue.Send(triggers.Message{ID: "m"})
	go func() { ended <- d.Run(running) }()
	t.Cleanup(func() {
		cancel()
		close(finish)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-began:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return func() {
		cancel()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for !strings.HasPrefix(d.Summary(), "stopping") {
			<-tick.C
		}
	}
}

// Answers of another program on the daemon's socket are reported as errors, without control
// characters.
func TestHealthOfAnotherProgram(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", admin.SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, 4)
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(<-answers))
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() { _ = server.Close(); <-served }()
	for _, c := range []struct{ command, answer, want string }{
		{"health", "<html>\x1b[2J", "reading the daemon's answer"},
		{"health", `{"status": "not ready", "reasons": ["\u001b[2Jgone"]}`, "not ready: ?[2Jgone"},
		{"status", `{"error": "no \u001b[2J function"}`, "answers 503 Service Unavailable: no ?[2J function"},
		{"status", "<html>\x1b[2J", "answers 503 Service Unavailable: <html>?[2J (not an answer of this version of drover)"},
	} {
		answers <- c.answer
		want := c.want
		status, _, errs := command(t.Context(), nil, nil, c.command, "--data-dir", dir)
		if status != ExitFailed || !strings.Contains(errs, want) || strings.Contains(errs, "\x1b") {
			t.Errorf("status %d, %q; want %q", status, errs, want)
		}
	}
}

// Commands that connect to a running daemon need neither its secrets nor its connections.
func TestClientCommandsNeedNoSecrets(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	adminDaemon(t, func(cfg *configs.Config) { cfg.DataDir = data })
	dir := write(t, map[string]string{"drover.yaml": "data_dir: " + data + `
connections:
  cluster: {nats: ["nats://127.0.0.1:1"], token: "${NOBODY_SETS_THIS}"}
  bus: {connection_string: "file:nowhere"}
functions: {f: {trigger: {nats: {connection: cluster}}, handler: {exec: {command: ["true"]}}}}
`})
	for _, by := range []string{"--config=" + filepath.Join(dir, "drover.yaml"), "--data-dir=" + data} {
		for _, c := range []struct {
			args, want string
			status     int
		}{
			{"status --once", "f  ", ExitOK},
			{"status --json", `"functions"`, ExitOK},
			{"health", "ok", ExitOK},
			{"pause f", "", ExitOK},
			{"resume f", "", ExitOK},
			{"tail f --once", "", ExitOK},
			{"explain f", "f", ExitOK},
			{"explain nowhere:17", "dead letters were not searched: ", ExitOK},
			{"scale explain", "no decisions", ExitFailed},
			{"reload", "reload refused", ExitFailed}, // a program started this daemon, without a file
		} {
			status, out, errs := command(t.Context(), nil, nil, append(strings.Fields(c.args), by)...)
			if status != c.status || !strings.Contains(out+errs, c.want) {
				t.Errorf("%s %s: status %d, want %d and %q\n%s%s", c.args, by, status, c.status, c.want, out, errs)
			}
		}
	}
	// Without a daemon, explain queries the sources, and needs their secrets.
	for by, want := range map[string]string{
		"--config=" + filepath.Join(write(t, map[string]string{"drover.yaml": strings.ReplaceAll(noDaemonConfig, "DIR", t.TempDir())}), "drover.yaml"): "NOBODY_SETS_THIS is not set",
		"--data-dir=" + t.TempDir(): "no daemon of this configuration is running here",
	} {
		if status, out, errs := command(t.Context(), nil, nil, "explain", "f", by); status != ExitFailed || !strings.Contains(out+errs, want) {
			t.Errorf("explain %s: status %d, want %q\n%s%s", by, status, want, out, errs)
		}
	}
}

const noDaemonConfig = `
data_dir: DIR
connections: {cluster: {nats: ["nats://127.0.0.1:1"], token: "${NOBODY_SETS_THIS}"}}
functions: {f: {trigger: {nats: {}}, handler: {exec: {command: ["true"]}}}}
`
