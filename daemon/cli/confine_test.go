package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/sandbox"
)

const confinedApp = `
import json, os, resource
def reads(path):
    try:
        open(path).read(1); return "yes"
    except OSError as e: return e.strerror
def look(body):
    status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
    temporary = os.environ.get("TMPDIR")
    if temporary: open(temporary + "/x", "w").close()
    return json.dumps({
        "uid": os.getuid(), "no_new_privs": status["NoNewPrivs"], "seccomp": status["Seccomp"], "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "configuration": reads(os.environ["FILE"]), "mode": os.environ.get("MODE"), "ours": os.environ.get("DROVER_SECRET"), "theirs": os.environ.get("A_SECRET")})
def large(body): return str(len(bytearray(b"x") * (512 << 20)))
`

const confinedScript = `
const fs = require('fs'), os = require('os'), path = require('path');
exports.look = message => {
  fs.writeFileSync(path.join(os.tmpdir(), 'x'), 'x');
  const status = Object.fromEntries(fs.readFileSync('/proc/self/status', 'utf8').split('\n').map(line => line.split(':\t')));
  let configuration = 'yes';
  try { fs.readFileSync(process.env.FILE); } catch (error) { configuration = error.code; }
  return { seccomp: status.Seccomp, configuration, ours: process.env.DROVER_SECRET ?? null, theirs: process.env.A_SECRET ?? null };
};
`

const confinedConfig = `
apps:
  plain: {path: ./app, environment: {set: {MODE: plain, FILE: "DIR/drover.yaml"}}}
  held:
    path: ./app
    limits: {open_files: 100}
    environment: {pass: [PATH, "DROVER_*"], set: {MODE: held, FILE: "DIR/drover.yaml"}}
  strict: {path: ./app, sandbox: strict, environment: {set: {FILE: "DIR/drover.yaml"}}}
  owned: {path: ./app, user: nobody, interpreter: /usr/bin/python3, environment: {set: {FILE: "DIR/drover.yaml"}}}
  js: {path: ./js, sandbox: strict, environment: {set: {FILE: "DIR/drover.yaml"}}}
  small: {path: ./app, limits: {memory: 128MiB}}
functions:
  plain: {trigger: {nats: {}}, handler: {python: {app: plain, function: look}}}
  held: {trigger: {nats: {}}, handler: {python: {app: held, function: look}}}
  strict: {trigger: {nats: {}}, handler: {python: {app: strict, function: look}}}
  owned: {trigger: {nats: {}}, handler: {python: {app: owned, function: look}}}
  js: {trigger: {nats: {}}, handler: {node: {app: js, function: look}}}
  large: {trigger: {nats: {}}, handler: {python: {app: small}}}
`

// confinedDir creates a project that all users can read, except its configuration.
func confinedDir(t *testing.T, config string) (file string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("this needs Linux")
	}
	dir, err := os.MkdirTemp("/tmp", "drover-confine-") //nolint:usetesting // other users cannot enter the parent of t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for path, text := range map[string]string{"app/function_app.py": confinedApp, "js/index.js": confinedScript} {
		path = filepath.Join(dir, path)
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "drover.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestWorkersAreHeldToWhatTheConfigurationSays runs functions that report their limits.
func TestWorkersAreHeldToWhatTheConfigurationSays(t *testing.T) {
	t.Setenv("DROVER_SECRET", "ours")
	t.Setenv("A_SECRET", "theirs")
	file := confinedDir(t, confinedConfig)
	for function, want := range map[string]map[string]any{
		"plain":  {"uid": os.Getuid(), "no_new_privs": "1", "seccomp": "0", "configuration": "yes", "mode": "plain", "ours": nil, "theirs": "theirs"},
		"held":   {"uid": os.Getuid(), "files": 100, "mode": "held", "ours": nil, "theirs": nil},
		"strict": {"uid": os.Getuid(), "no_new_privs": "1", "seccomp": "2", "configuration": "Permission denied", "ours": nil, "theirs": nil},
		"js":     {"seccomp": "2", "configuration": "EACCES", "ours": nil, "theirs": nil},
		"owned":  {"uid": numberOf("nobody"), "no_new_privs": "1", "configuration": "Permission denied", "ours": nil, "theirs": "theirs"},
	} {
		t.Run(function, func(t *testing.T) {
			if function == "strict" || function == "js" {
				possible(t, sandbox.Settings{Strict: true})
			}
			if _, err := exec.LookPath("node"); function == "js" && err != nil {
				t.Skipf("this needs Node.js: %v", err)
			}
			if function == "owned" {
				possible(t, sandbox.Settings{User: "nobody"})
				if _, err := os.Stat("/usr/bin/python3"); err != nil {
					t.Skipf("this needs a Python that others can read: %v", err)
				}
			}
			status, out, errs := command(t.Context(), nil, strings.NewReader(""), "invoke", function, "-c", file, "--body", "x")
			if status != ExitOK {
				t.Fatalf("status %d, %s%s", status, out, errs)
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for key, value := range want {
				if n, number := value.(int); number {
					value = float64(n) // the type of numbers in JSON
				}
				if got[key] != value {
					t.Errorf("%s is %v, wanted %v", key, got[key], value)
				}
			}
		})
	}
}

// numberOf returns a user's ID; -1 if the user does not exist.
func numberOf(name string) int {
	u, err := user.Lookup(name)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(u.Uid)
	if err != nil {
		return -1
	}
	return n
}

// possible skips a test if this machine does not support the settings.
func possible(t *testing.T, s sandbox.Settings) {
	t.Helper()
	if err := sandbox.Check(s); err != nil {
		t.Skipf("not possible here: %v", err)
	}
}

func TestAMessageThatTakesTooMuchMemory(t *testing.T) {
	t.Parallel()
	file := confinedDir(t, confinedConfig)
	possible(t, sandbox.Settings{Limits: sandbox.Limits{Memory: 1 << 30}})
	status, out, errs := command(t.Context(), nil, strings.NewReader(""), "invoke", "large", "-c", file, "--body", "x")
	if status != ExitFailed || !strings.Contains(errs, "the worker process died: it exceeded limits.memory (128 MiB), and the kernel killed it") {
		t.Errorf("status %d, %s%s", status, out, errs)
	}
}

// Settings that cannot be enforced here are refused, by check and by run.
func TestWhatWorkersCannotBeHeldToIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		app, want string
		user      bool // only root gets past the check before it
	}{
		"no such user":                     {"{path: ./app, user: no-such-user}", "app app: user: ", false},
		"data in the app":                  {"{path: ., sandbox: strict}", "data_dir", false},
		"a path that is not there":         {"{path: ./app, sandbox: {profile: strict, read: [./nowhere]}}", "nowhere cannot be given to workers: no such file or directory", false},
		"more files than can be":           {"{path: ./app, limits: {open_files: 1000000000}}", "open_files", false},
		"an app that its user cannot read": {"{path: ./closed, user: nobody}", "reading as its user: ", true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.user {
				possible(t, sandbox.Settings{User: "nobody"})
			}
			file := confinedDir(t, "apps: {app: "+c.app+"}\nfunctions: {look: {trigger: {nats: {}}, handler: {python: {app: app, module: function_app}}}}\n")
			if err := os.Mkdir(filepath.Join(filepath.Dir(file), "closed"), 0o700); err != nil {
				t.Fatal(err)
			}
			for args, want := range map[string]int{"check": ExitFailed, "run": ExitStart} {
				status, out, errs := command(t.Context(), nil, strings.NewReader(""), args, file)
				if status != want || !strings.Contains(errs, c.want) || !strings.Contains(errs, "app app: ") {
					t.Errorf("%s: status %d, %s%s", args, status, out, errs)
				}
			}
		})
	}
}
