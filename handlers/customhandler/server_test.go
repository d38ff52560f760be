package customhandler

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 3 * time.Minute

// program is a custom handler that reports how it was started.
const program = `
import http.server, json, os, signal, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"args": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("starts", flush=True)
http.server.HTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), Handler).serve_forever()
`

// report is the program's answer.
type report struct {
	Args []string
	Env  map[string]string
	Cwd  string
	PID  int `json:"pid"`
}

// lines collects the log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.text.Write(p)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// waitFor waits until the log has a text.
func (l *lines) waitFor(t *testing.T, text string) {
	t.Helper()
	limit := time.After(patience)
	for !strings.Contains(l.String(), text) {
		select {
		case <-l.more:
		case <-limit:
			t.Fatalf("%q was not logged:\n%s", text, l)
		}
	}
}

// server runs a Python program as a server. stop ends it, and waits for its end.
func server(t *testing.T, source string, change func(*Config)) (s *Server, log *lines, stop func()) {
	t.Helper()
	log = newLines()
	logger := slog.New(slog.NewTextHandler(log, nil))
	reaper := childproc.New(logger)
	cfg := Config{
		Starter: &process.Starter{
			Command: process.Command{Path: "python3", Dir: t.TempDir(), Env: []string{"PATH=" + os.Getenv("PATH"), "ONE=1", "FUNCTIONS_CUSTOMHANDLER_PORT=7"}},
			Reaper:  reaper, Log: logger,
		},
		Arguments: []string{"-c", strconv.Quote("exec(__import__('os').environ['SOURCE'])")},
		Root:      "/the/app", StartTimeout: patience, StopGrace: patience, Log: logger,
	}
	cfg.Starter.Command.Env = append(cfg.Starter.Command.Env, "SOURCE="+source)
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		reaper.Close()
	})
	t.Cleanup(stop)
	return s, log, stop
}

// ready waits until the program listens.
func ready(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// get asks the program how it was started.
func get(t *testing.T, s *Server) (r report, err error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	answer, err := client.Get("http://" + s.Address() + "/")
	if err != nil {
		return r, err
	}
	text, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return r, err
	}
	return r, json.Unmarshal(text, &r)
}

func TestTheProgramIsStartedAsByTheHost(t *testing.T) {
	t.Parallel()
	s, log, stop := server(t, program, func(c *Config) {
		c.Arguments = append(c.Arguments, "--port", "%FUNCTIONS_CUSTOMHANDLER_PORT%", "%ONE%-two", `"a b"`, "c d", "x%MISSING%y")
	})
	ready(t, s)
	got, err := get(t, s)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(s.Address())
	if want := []string{"--port", port, "1-two", "a b", "c", "d", "xy"}; !slices.Equal(got.Args, want) {
		t.Errorf("the arguments are %q, want %q", got.Args, want)
	}
	if id := got.Env["FUNCTIONS_CUSTOMHANDLER_WORKER_ID"]; len(id) != 36 || got.Env["FUNCTIONS_HTTPWORKER_ID"] != id || got.Env["FUNCTIONS_CUSTOMHANDLER_PORT"] != port ||
		got.Env["FUNCTIONS_HTTPWORKER_PORT"] != port || got.Env["FUNCTIONS_APP_ROOT_PATH"] != "/the/app" || got.Env["ONE"] != "1" {
		t.Errorf("the environment is %v", got.Env)
	}
	if got.Cwd != s.cfg.Starter.Command.Dir || got.PID != s.PID() {
		t.Errorf("it runs in %s as process %d", got.Cwd, got.PID)
	}
	stop()
	if _, err := get(t, s); err == nil {
		t.Error("it still listens")
	}
	for _, want := range []string{"variable=MISSING", "msg=starts", "stream=stdout", "the custom handler listens"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
}

// A port in host.json is used unchanged.
func TestAFixedPort(t *testing.T) {
	t.Parallel()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	s, _, _ := server(t, program, func(c *Config) { c.Port = port })
	ready(t, s)
	if s.Address() != net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) {
		t.Errorf("its address is %s", s.Address())
	}
}

func TestAProgramThatEndsIsStartedAgain(t *testing.T) {
	t.Parallel()
	s, log, _ := server(t, program, nil)
	ready(t, s)
	before, err := get(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	log.waitFor(t, "the custom handler ended; it is started again")
	for end := time.Now().Add(patience); ; {
		after, err := get(t, s)
		if err == nil && after.PID != before.PID {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no other process: %v", err)
		}
	}
	if text := log.String(); !strings.Contains(text, "killed by SIGKILL") {
		t.Errorf("the log does not say how it ended:\n%s", text)
	}
}

func TestProgramsThatDoNotStart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		source, want, detail string
		change               func(*Config)
	}{
		"it ends":            {"import sys; sys.exit('no database')", "exit status 1", "no database", nil},
		"it does not listen": {"import signal; signal.pause()", "did not listen on 127.0.0.1:", "", func(c *Config) { c.StartTimeout = 100 * time.Millisecond }},
		"there is none":      {"", "/nowhere/handler", "", func(c *Config) { c.Starter.Command.Path = "/nowhere/handler" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, _ := server(t, test.source, test.change)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := s.WaitReady(ctx)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v; want %q", err, test.want)
			}
			var failure *handlers.Failure
			if test.detail != "" && (!errors.As(err, &failure) || !strings.Contains(failure.Detail, test.detail)) {
				t.Errorf("the detail of %v has no %q", err, test.detail)
			}
		})
	}
}

func TestAStubbornProgramIsKilled(t *testing.T) {
	t.Parallel()
	s, log, stop := server(t, program, func(c *Config) {
		c.Arguments = append(c.Arguments, "stubborn")
		c.StopGrace = time.Millisecond
	})
	ready(t, s)
	stop()
	if text := log.String(); !strings.Contains(text, "did not end after SIGTERM") {
		t.Errorf("the log does not say so:\n%s", text)
	}
	if s.PID() != 0 {
		t.Errorf("process %d still runs", s.PID())
	}
}

func TestAServerThatIsStoppedBeforeItListens(t *testing.T) {
	t.Parallel()
	s, _, stop := server(t, "import signal; signal.pause()", nil)
	stop()
	if err := s.WaitReady(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// The rules match .NET's: the host starts the program with .NET.
func TestSplitArguments(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		``:                   nil,
		`  `:                 nil,
		`a`:                  {"a"},
		` a  b	c `:           {"a", "b", "c"},
		`"a b" c`:            {"a b", "c"},
		`a"b c"d`:            {"ab cd"},
		`""`:                 {""},
		`a "" b`:             {"a", "", "b"},
		`\"a\"`:              {`"a"`},
		`"a\"b"`:             {`a"b`},
		`"a""b"`:             {`a"b`},
		`C:\dir\file`:        {`C:\dir\file`},
		`"C:\my dir\\" x`:    {`C:\my dir\`, "x"},
		`a\\\"b`:             {`a\"b`},
		`--x="{\"k\": 1}"`:   {`--x={"k": 1}`},
		`run --watch "a b`:   {"run", "--watch", "a b"},
		`end\`:               {`end\`},
		"öl \"ü ß\" \u00a0x": {"öl", "ü ß", "\u00a0x"},
	} {
		if got := splitArguments(line); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestExpandVariables(t *testing.T) {
	t.Parallel()
	environ := []string{"A=first", "B=%A%", "A=last", "EMPTY="}
	for text, want := range map[string]string{
		"%A%": "last", "x%B%y": "x%A%y", "%EMPTY%|": "|", "100%": "100%", "50% of 100%": "50% of 100%", "%%": "%%", "%NO%%A%": "last", "%a%": "",
	} {
		if got, _ := ExpandVariables(text, environ); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if _, unset := ExpandVariables("%A% %X% %Y%", environ); !slices.Equal(unset, []string{"X", "Y"}) {
		t.Errorf("unset are %q", unset)
	}
}
