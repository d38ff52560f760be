package cli

import (
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

const workersConfig = `
log: {format: text}
scale: {idle: 2s, workers: {min: 0}}
functions:
  work:
    trigger: {nats: {}}
    handler: {python: {path: ./app}}
  other:
    trigger: {nats: {}}
    handler: {python: {path: ./app}}
`

// Workers start as the load grows, and stop as it falls, down to none. The next message starts one
// again.
func TestWorkersFollowTheLoad(t *testing.T) {
	t.Parallel()
	s := &scaled{dir: write(t, map[string]string{"drover.yaml": workersConfig, "app/function_app.py": scaledApp + "\nother = work\n"})}
	s.file = filepath.Join(s.dir, "drover.yaml")
	out, stop := startCommand(t, "run", s.file)
	out.WaitFor(t, "msg=running")
	s.send(t, 200)
	if runtime.GOMAXPROCS(0) > 1 { // more than one worker
		out.WaitFor(t, "msg=\"scaling workers\" app=app from=1 to=2")
		var status int
		var text, errs string
		until(t, out, "the scaler has decided", func() bool { // it decides once a second
			status, text, errs = command(t.Context(), nil, nil, "scale", "explain", "--verbose", "-c", s.file)
			return status == ExitOK
		})
		if status != ExitOK || !strings.Contains(text, "workers of app, decided at") || !strings.Contains(text, "work: ") || !strings.Contains(text, "other: ") {
			t.Errorf("explain: status %d\n%s%s", status, text, errs)
		}
	}
	s.allEnd(t, out)
	out.WaitFor(t, "to=0 bound=formula")
	s.send(t, 1)
	s.allEnd(t, out)
	if _, charged := s.ended(t); charged != 0 {
		t.Errorf("%d attempts were charged to messages that only met workers which came and went", charged)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

func TestTheScaleDemo(t *testing.T) {
	t.Parallel()
	_, out, ended := child(t, "demo", "--scale", "--for", "8s", "--data-dir", t.TempDir())
	status := waitFor(t, ended, out)
	m := lastLine.FindStringSubmatch(out.String())
	if status != ExitOK || m == nil || m[1] != m[2] || m[1] == "0" || m[3] != "0" || m[4] != "0" || m[5] != "0" {
		t.Errorf("status %d\n%s", status, out)
	}
	if !regexp.MustCompile(`with up to [234] instances`).MatchString(out.String()) {
		t.Errorf("the wave brought no second instance:\n%s", out)
	}
	if status, _, errs := command(t.Context(), nil, nil, "demo", "--scale", "--messages", "5"); status != ExitUsage || !strings.Contains(errs, "--scale cannot be combined") {
		t.Errorf("--scale with --messages: status %d, %s", status, errs)
	}
}
