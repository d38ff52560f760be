package watch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/daemontest"

	"log/slog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const config = `
apps: {shop: {path: ./current}}
functions:
  one: {trigger: {nats: {}}, handler: {python: {app: shop}}}
  two: {trigger: {nats: {}}, handler: {node: {path: ./node}}}
`

func load(t *testing.T, file string) *configs.Config {
	t.Helper()
	cfg, err := configs.Load(file, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// All ways in which editors and releases save files are detected. Files that are not code are ignored.
func TestSavesAreDetected(t *testing.T) {
	t.Parallel()
	dir := daemontest.WriteFiles(t, map[string]string{"drover.yaml": config, "releases/1/main.py": "1", "releases/2/main.py": "22", "node/index.js": "1"})
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) error {
		return errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o700), os.WriteFile(at(name), []byte(text), 0o600))
	}
	link := func(to string) error {
		return errors.Join(os.Symlink(to, at("new")), os.Rename(at("new"), at("current")))
	}
	if err := link("releases/1"); err != nil {
		t.Fatal(err)
	}
	w := New(at("drover.yaml"))
	w.Follow(load(t, at("drover.yaml")))
	for _, step := range []struct {
		what string
		do   func() error
		want string
	}{
		{"nothing", func() error { return nil }, ""},
		{"a save in place", func() error { return write("releases/1/main.py", "longer") }, "main.py"},
		{"a temporary file", func() error { return write("releases/1/main.py.tmp", "by an editor") }, ""},
		{"and its new name", func() error { return os.Rename(at("releases/1/main.py.tmp"), at("releases/1/main.py")) }, "main.py"},
		{"the other release", func() error { return write("releases/2/main.py", "not current") }, ""},
		{"a release is switched", func() error { return link("releases/2") }, "main.py"},
		{"a module in a new directory", func() error { return write("releases/2/lib/helper.py", "1") }, "lib/helper.py"},
		{"files that Python and an editor write", func() error {
			return errors.Join(write("releases/2/__pycache__/main.py", "1"), write("releases/2/.git/main.py", "1"), write("releases/2/main.py~", "1"))
		}, ""},
		{"a module is removed", func() error { return os.Remove(at("releases/2/lib/helper.py")) }, "lib/helper.py"},
		{"Node.js, and a file that it reads", func() error { return errors.Join(write("node/index.js", "22"), write("node/data.json", "{}")) }, "data.json index.js"},
		{"a package", func() error { return write("node/node_modules/x/index.js", "1") }, ""},
		{"the configuration", func() error { return write("drover.yaml", config+"# more\n") }, "drover.yaml"},
		{"the configuration, renamed", func() error {
			return errors.Join(write("next.yaml", config), os.Rename(at("next.yaml"), at("drover.yaml")))
		}, "drover.yaml"},
		{"the app is gone", func() error { return os.Remove(at("current")) }, "main.py"},
		{"it is back", func() error { return link("releases/2") }, "main.py"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(step.what, err)
		}
		changed := w.look()
		var names []string
		for name := range changed {
			names = append(names, name)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != step.want {
			t.Errorf("%s: %q; want %q", step.what, got, step.want)
		}
	}
}

// A directory is watched before its configuration loads. All files of a function app are watched.
func TestDirectories(t *testing.T) {
	t.Parallel()
	plain := daemontest.WriteFiles(t, map[string]string{"drover.yaml": "", "code/main.py": ""})
	azure := daemontest.WriteFiles(t, map[string]string{"host.json": `{"version": "2.0"}`, "function_app.py": "", "old/function.json": "{}"})
	for _, test := range []struct{ dir, file, want string }{
		{plain, "drover.yaml", "drover.yaml"}, {plain, "code/main.py", ""},
		{azure, "host.json", "host.json"}, {azure, "function_app.py", "function_app.py"}, {azure, "local.settings.json", "local.settings.json"},
		{azure, "old/function.json", "old/function.json"}, {azure, "drover.yaml", "drover.yaml"}, {azure, "readme.md", ""},
	} {
		w := New(test.dir)
		if err := os.WriteFile(filepath.Join(test.dir, test.file), []byte("saved"), 0o600); err != nil {
			t.Fatal(err)
		}
		if changed := w.look(); len(changed) > 1 || changed[test.want] != (test.want != "") {
			t.Errorf("%s: %v; want %q", test.file, changed, test.want)
		}
	}
}

// Environment files are watched from the moment that the configuration names them: also before they exist,
// and while the configuration does not load.
func TestEnvFiles(t *testing.T) {
	t.Parallel()
	dir := daemontest.WriteFiles(t, map[string]string{"drover.yaml": "env_file: .env\nfunctions: {one: {timeout: \"${LIMIT}\"}}\n", "other/x.env": "A=1"})
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{filepath.Join(dir, "drover.yaml"), dir} {
		w := New(path)
		check := func(what, want string) {
			t.Helper()
			var names []string
			for name := range w.look() {
				names = append(names, name)
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != want {
				t.Errorf("%s: %s: %q; want %q", path, what, got, want)
			}
		}
		write(".env", "LIMIT=5s")
		check("it is created, and the configuration loads", ".env")
		write(".env", "LIMIT=10m")
		check("a value changes", ".env")
		if err := os.Remove(filepath.Join(dir, ".env")); err != nil {
			t.Fatal(err)
		}
		check("it is removed", ".env")
		write("drover.yaml", "env_file: [.env, other/x.env]\nfunctions: {one: {timeout: \"${LIMIT}\"}}\nnonsense: 1\n")
		check("the configuration names one more", "drover.yaml")
		w.Follow(nil)
		write("other/x.env", "A=1\nLIMIT=1s # "+path)
		check("the new one", "x.env")
		write("drover.yaml", "env_file: .env\nfunctions: {one: {timeout: \"${LIMIT}\"}}\n")
	}
}

// A burst of saves without long gaps counts as one save.
func TestBurst(t *testing.T) {
	t.Parallel()
	dir := daemontest.WriteFiles(t, map[string]string{"drover.yaml": config, "current/main.py": "", "node/index.js": ""})
	synctest.Test(t, func(t *testing.T) {
		w := New(filepath.Join(dir, "drover.yaml"))
		w.Follow(load(t, filepath.Join(dir, "drover.yaml")))
		began := time.Now()
		go func() {
			for _, name := range []string{"a.py", "b.py", "c.py"} {
				if err := os.WriteFile(filepath.Join(dir, "current", name), []byte(name), 0o600); err != nil {
					t.Error(err)
				}
				time.Sleep(quiet * 3 / 4)
			}
		}()
		names, err := w.Next(t.Context())
		if got := strings.Join(names, " "); err != nil || got != "a.py b.py c.py" {
			t.Errorf("%s, %v", got, err)
		}
		if took := time.Since(began); took > 4*quiet+every {
			t.Errorf("it took %v", took)
		}
		stopped, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if names, err := w.Next(stopped); err == nil {
			t.Errorf("nothing was saved, and it returned %v", names)
		}
	})
}

// fake is a daemon that answers reloads.
type fake struct {
	changes api.Changes
	err     error
}

func (f fake) ReloadFile(context.Context) (api.Changes, error) { return f.changes, f.err }
func (f fake) Config() *configs.Config                         { return configs.New() }

func TestReport(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]fake{
		"level=WARN msg=\"saved files were not loaded; the old code keeps running until the next save\"": {err: errors.New("no")},
		"msg=\"saved files were loaded\" functions=\"a, b\" took=":                                       {changes: api.Changes{Added: []string{"a"}, Changed: []string{"b"}}},
		"msg=\"saved files were loaded\" functions=\"1, 2, 3, 4, 5 and 1 more\" took=":                   {changes: api.Changes{Changed: []string{"1", "2", "3", "4", "5", "6"}}},
		"msg=\"saved files were loaded\" removed=c took=":                                                {changes: api.Changes{Removed: []string{"c"}}},
		"msg=\"saved files change no function\" took=":                                                   {changes: api.Changes{Kept: []string{"d"}}},
	} {
		var log strings.Builder
		New(filepath.Join(t.TempDir(), "drover.yaml")).reload(t.Context(), d, slog.New(slog.NewTextHandler(&log, nil)))
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q lacks %q", log.String(), want)
		}
	}
}

// A daemon that cannot start is started again after the next save; a stopped daemon is not.
func TestRunAgain(t *testing.T) {
	t.Parallel()
	file := filepath.Join(daemontest.WriteFiles(t, map[string]string{"drover.yaml": ""}), "drover.yaml")
	w := New(file)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log []string
	err := w.RunAgain(ctx, func() error {
		log = append(log, "run")
		if len(log) == 3 {
			cancel()
			return errors.New("cut short")
		}
		return errors.New("does not load")
	}, func(err error) {
		log = append(log, err.Error())
		if err := os.WriteFile(file, []byte("# saved"), 0o600); err != nil {
			t.Error(err)
		}
	})
	if got := strings.Join(log, ", "); got != "run, does not load, run" || err == nil || err.Error() != "cut short" {
		t.Errorf("%s; %v", got, err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	if err := w.RunAgain(ctx, func() error { return errors.New("does not load") }, func(error) { cancel() }); err != nil {
		t.Errorf("stopped while it waited: %v", err)
	}
}
