package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

func TestProfileCommand(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"drover.yaml": pythonConfig,
		"app/function_app.py": `import os, time
def pause(): time.sleep(0.01)
def greet(body):
    print("runs")
    while not os.path.exists(body.decode()): pause()
`,
	})
	file, svg, over := filepath.Join(dir, "drover.yaml"), filepath.Join(dir, "out.svg"), filepath.Join(dir, "over")
	if status, _, errs := command(t.Context(), nil, nil, "profile", "greet", "-c", file, "-o", svg); status != ExitFailed || !strings.Contains(errs, "no daemon of this configuration is running here") {
		t.Errorf("without a daemon: status %d, %s", status, errs)
	}
	if status, _, errs := command(t.Context(), nil, nil, "profile", "greet", "-c", file, "--for", "1h"); status != ExitUsage || !strings.Contains(errs, "--for is 1h0m0s; use a duration from 1s to 5m") {
		t.Errorf("for an hour: status %d, %s", status, errs)
	}
	log, stop := startCommand(t, "run", file)
	log.WaitFor(t, "\"msg\":\"running\"")
	if status, _, errs := command(t.Context(), nil, nil, "profile", "greeet", "-c", file); status != ExitFailed || !strings.Contains(errs, `there is no function "greeet" (did you mean greet?)`) {
		t.Errorf("status %d: %s", status, errs)
	}
	if status, _, errs := command(t.Context(), nil, nil, "profile", "greet", "-c", file, "-o", svg, "--for", "1s"); status != ExitFailed || !strings.Contains(errs, "no call of function greet ran within 1s") {
		t.Errorf("without calls: status %d, %s", status, errs)
	}
	if status, _, errs := command(t.Context(), nil, nil, "send", "greet", "-c", file, "--body", over); status != ExitOK {
		t.Fatal(errs)
	}
	log.WaitFor(t, "runs")

	// An interrupted command leaves the daemon free for the next one.
	ctx, cancel := context.WithCancel(t.Context())
	printed, ended := newPrinted(), make(chan int, 1)
	go func() {
		ended <- Command(ctx, []string{"profile", "greet", "-c", file, "-o", svg, "--for", "5m"}, &IO{Out: printed, Err: printed, Env: os.LookupEnv, Environ: os.Environ})
	}()
	printed.WaitFor(t, "profiling function greet for 5m0s")
	cancel()
	if status := <-ended; status != ExitFailed || !strings.Contains(printed.String(), "drover: interrupted; the workers no longer sample, and nothing was written") {
		t.Errorf("status %d: %s", status, printed)
	}
	if _, err := os.Stat(svg); err == nil {
		t.Error("a file was written")
	}
	for {
		status, out, errs := command(t.Context(), nil, nil, "profile", "greet", "-c", file, "-o", svg, "--for", "1s")
		if status == ExitFailed && strings.Contains(errs, "409") { // the daemon has not noticed the interruption yet
			continue
		}
		if status != ExitOK || !strings.Contains(out, "1 call, ") || !strings.Contains(out, "in 1 worker\nwrote "+svg+", a flame graph: open it in a browser\n") {
			t.Fatalf("status %d: %s%s", status, out, errs)
		}
		break
	}
	pb, err := os.ReadFile(filepath.Join(dir, "out.pb.gz"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.ParseData(pb)
	if err != nil || len(p.Sample) == 0 {
		t.Fatalf("%v, %v", p, err)
	}
	if text, err := os.ReadFile(svg); err != nil || !strings.Contains(string(text), "<title>greet\n") || !strings.Contains(string(text), "<title>pause\n") {
		t.Errorf("%s, %v", text, err)
	}
	if err := os.WriteFile(over, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, log)
	}
}
