package apps

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/scaler/autotune"
	"github.com/drover-run/drover/scaler/hostinfo"
	"github.com/drover-run/drover/triggers"
)

// TestCoreShare checks that workers and commands get their share of the cores for libraries, that the user's
// variables are kept, and that the share follows the number of processes.
func TestCoreShare(t *testing.T) {
	t.Parallel()
	machine, err := hostinfo.New().ReadMachine()
	if err != nil {
		t.Fatal(err)
	}
	cores := max(int(machine.Cores+0.05), 1)
	environ := []string{"PATH=" + os.Getenv("PATH"), "POLARS_MAX_THREADS=7"}
	for _, test := range []struct {
		name, handler string
		share         int
	}{
		{"a worker of two", "{python: {app: app, module: function_app, function: f}}", max(cores/2, 1)},
		{"commands, one at a time", `{exec: {command: [sh, -c, 'echo "$$OMP_NUM_THREADS $$POLARS_MAX_THREADS $$OPENBLAS_NUM_THREADS $$GOMAXPROCS"'], environment: {set: {OPENBLAS_NUM_THREADS: "5"}}}}`, cores},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, text := range map[string]string{
				"drover.yaml": `
data_dir: data
functions:
  f: {trigger: {nats: {}}, output: {nats: {subject: out}}, concurrency: 1, handler: ` + test.handler + `}
apps:
  app: {path: app, processes: 2, environment: {set: {OPENBLAS_NUM_THREADS: "5"}}}
`,
				"app/function_app.py": `
import os
# As libraries do, it reads the variables when it is loaded.
share = " ".join(os.environ.get(name, "none") for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS", "GOMAXPROCS"))
def f(body): return share
`,
			} {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cfg, err := configs.Load(filepath.Join(dir, "drover.yaml"), os.LookupEnv)
			if err != nil {
				t.Fatal(err)
			}
			f, err := OpenStandalone(t.Context(), Options{
				Config: cfg, Env: os.LookupEnv, Environ: func() []string { return environ }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			}, "f")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			})
			got, err := f.Handler.Handle(t.Context(), &triggers.Message{})
			if want := fmt.Sprintf("%d 7 5 %[1]d", test.share); err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s, %v; want %s", got, err, want)
			}
		})
	}
}

func TestCoresText(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		cores float64
		share int
		want  string
	}{
		{0, 1, ""},
		{1.94, 2, "a call uses 1.9 cores, because it computes with threads of its own; each worker has 2 for them"},
		{1.94, 1, "a call uses 1.9 cores, because it computes with threads of its own; each worker has 1 for them, but the library does not follow the variables"},
	} {
		if got := CoresText(autotune.Kind{Cores: test.cores}, test.share); !strings.HasPrefix(got, test.want) || (test.share == 2 || test.want == "") && got != test.want {
			t.Errorf("%v cores of %d: %q, want %q", test.cores, test.share, got, test.want)
		}
	}
}
