package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// largest is the maximum size of the static binary.
const largest = 60 << 20

// patience bounds every wait.
const patience = 4 * time.Minute

// stage is a stage of the Dockerfile, as far as a test can build a root file system from it.
type stage struct {
	copies                  [][2]string // from the build stage, to
	user, workdir           string
	volumes                 []string
	entrypoint, cmd, health []string
}

// stages reads the Dockerfile, and its command that builds the program.
func stages(t *testing.T) (build []string, out map[string]*stage) {
	t.Helper()
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	joined := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(string(text), "")
	if m := regexp.MustCompile(`(?m)^RUN CGO_ENABLED=0 GOOS=\$TARGETOS GOARCH=\$TARGETARCH go (build .*) -o /drover \.$`).FindStringSubmatch(joined); m != nil {
		build = regexp.MustCompile(`-ldflags="[^"]*"|\S+`).FindAllString(m[1], -1)
	}
	if len(build) < 3 {
		t.Fatalf("the Dockerfile builds no static program: %v", build)
	}
	out = make(map[string]*stage)
	var s *stage
	list := func(text string) (words []string) {
		if err := json.Unmarshal([]byte(text), &words); err != nil {
			t.Fatalf("%s needs a shell: %v", text, err)
		}
		return words
	}
	for line := range strings.Lines(joined) {
		words := strings.Fields(line)
		rest := func(word string) string { return strings.TrimSpace(line[strings.Index(line, word)+len(word):]) }
		switch {
		case len(words) == 0:
		case words[0] == "FROM":
			s = new(stage)
			out[words[len(words)-1]] = s
		case words[0] == "COPY" && words[1] == "--from=build":
			s.copies = append(s.copies, [2]string{words[len(words)-2], words[len(words)-1]})
		case words[0] == "USER":
			s.user = words[1]
		case words[0] == "WORKDIR":
			s.workdir = words[1]
		case words[0] == "VOLUME":
			s.volumes = words[1:]
		case words[0] == "ENTRYPOINT":
			s.entrypoint = list(rest("ENTRYPOINT"))
		case words[0] == "CMD":
			s.cmd = list(rest("CMD"))
		case words[0] == "HEALTHCHECK":
			s.health = list(rest(" CMD"))
		}
	}
	return build, out
}

func TestImagesAreAlike(t *testing.T) {
	_, all := stages(t)
	for _, name := range []string{"drover", "drover-python"} {
		s := all[name]
		if s == nil {
			t.Fatalf("there is no stage %s", name)
		}
		if s.user != fmt.Sprintf("%d:%d", user, user) || s.workdir != dataDir || !slices.Equal(s.volumes, []string{dataDir}) {
			t.Errorf("%s: user %s in %s, volumes %v", name, s.user, s.workdir, s.volumes)
		}
		if !slices.Equal(s.cmd, []string{"run", "/etc/drover/drover.yaml"}) || s.entrypoint[len(s.entrypoint)-1] != s.health[0] {
			t.Errorf("%s: %v %v, asked by %v", name, s.entrypoint, s.cmd, s.health)
		}
	}
}

// root is the root file system of a stage, which the test assembles, with a volume and a
// configuration.
type root struct {
	dir, data, config string
	stage             *stage
}

// command returns a command that runs in it, as process 1 of its own PID namespace and as the
// image's user, where only the volume is writable.
func (r root) command(args ...string) *exec.Cmd {
	script := `mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount --bind "$2" "$1$4" && mount --bind "$3" "$1/etc/drover" &&
		mount -o remount,bind,ro "$1/etc/drover" && id=$5 dir=$1 && shift 5 && exec chroot --userspec="$id" "$dir" "$@"`
	c := exec.Command("unshare", slices.Concat([]string{"--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", r.dir, r.data, r.config, dataDir, r.stage.user}, args)...)
	c.Env = []string{}
	return c
}

// newRoot builds the program as the Dockerfile does, and assembles a root.
func newRoot(t *testing.T, config string) root {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can make a root file system of its own")
	}
	if out, err := exec.Command("unshare", "--mount", "--pid", "--fork", "mount", "--bind", "/tmp", "/tmp").CombinedOutput(); err != nil {
		t.Skipf("no mount can be made here: %v, %s", err, out)
	}
	build, all := stages(t)
	// A directory that the image's user can reach.
	base, err := os.MkdirTemp("/tmp", "drover-image-") //nolint:usetesting // the directory above t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	r := root{dir: filepath.Join(base, "root"), data: filepath.Join(base, "data"), config: filepath.Join(base, "config"), stage: all["drover"]}
	program := filepath.Join(base, "drover")
	for i, word := range build {
		build[i] = strings.ReplaceAll(strings.ReplaceAll(word, `"`, ""), "$VERSION", "v1.2.3")
	}
	c := exec.Command("go", slices.Concat([]string{"-C", ".."}, build, []string{"-o", program, "."})...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off") // the image has no go.work
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(os.Chmod(base, 0o755))
	for _, dir := range []string{r.dir + "/etc/drover", r.data, r.config} {
		must(os.MkdirAll(dir, 0o755))
	}
	must(os.WriteFile(r.config+"/drover.yaml", []byte(config), 0o644))
	must(os.Chown(r.data, user, user))
	for _, c := range r.stage.copies {
		to := r.dir + c[1]
		must(os.MkdirAll(filepath.Dir(to), 0o755))
		from := c[0]
		switch from {
		case "/drover":
			from = program
		case "/data":
			must(os.MkdirAll(to, 0o755))
			continue
		}
		if out, err := exec.Command("cp", "-RL", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return r
}

func TestImage(t *testing.T) {
	posted := make(chan string, 1)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPost {
			posted <- string(body)
		}
	}))
	defer app.Close()
	r := newRoot(t, fmt.Sprintf(`
data_dir: %s
scale: {timezone: Europe/Berlin}
functions:
  f:
    trigger: {nats: {}}
    handler: {http: {url: %q}}
`, dataDir, app.URL))
	info, err := os.Stat(r.dir + "/usr/local/bin/drover")
	if err != nil || info.Size() > largest {
		t.Fatalf("the program has %d bytes, more than %d: %v", info.Size(), largest, err)
	}
	t.Logf("the program has %.1f MB", float64(info.Size())/1e6)

	drover := r.stage.entrypoint
	if out, err := r.command(slices.Concat(drover, []string{"version"})...).CombinedOutput(); err != nil || !strings.Contains(string(out), "drover v1.2.3 ") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := r.command(r.stage.health...).CombinedOutput(); err == nil || !strings.Contains(string(out), "no daemon") {
		t.Errorf("its health, where it does not run: %v, %s", err, out)
	}

	c := r.command(slices.Concat(drover, r.stage.cmd)...)
	out := new(locked)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	defer func() { _ = c.Process.Kill() }()
	deadline, tick := time.After(patience), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for healthy := false; !healthy; {
		select {
		case err := <-ended:
			t.Fatalf("%v\n%s", err, out)
		case <-deadline:
			t.Fatalf("it is not well:\n%s", out)
		case <-tick.C:
			healthy = r.command(r.stage.health...).Run() == nil
		}
	}
	if text, err := r.command(slices.Concat(drover, []string{"send", "f", "--body", "hello", "-c", "/etc/drover/drover.yaml"})...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	select {
	case body := <-posted:
		if body != "hello" {
			t.Errorf("%q", body)
		}
	case <-time.After(patience):
		t.Fatalf("the message does not come:\n%s", out)
	}
	// An engine, too, signals process 1 itself.
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	case <-time.After(patience):
		t.Errorf("it does not stop:\n%s", out)
	}
}

// A data directory that cannot be written is reported: another user's volume, or a read-only one.
func TestImageWithoutAPlaceForItsData(t *testing.T) {
	const functions = "\nfunctions: {f: {trigger: {nats: {}}, handler: {http: {url: \"http://127.0.0.1:1\"}}}}\n"
	r := newRoot(t, "data_dir: "+dataDir+functions)
	if err := os.Chown(r.data, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.config+"/readonly.yaml", []byte("data_dir: /etc/drover/data"+functions), 0o644); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"drover.yaml": "permission denied", "readonly.yaml": "read-only file system"} {
		out, err := r.command(slices.Concat(r.stage.entrypoint, []string{"run", "/etc/drover/" + file})...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(string(out), want) || !strings.Contains(string(out), "user 10001 cannot write to data_dir") {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

// locked is the output of a process, which others may read meanwhile.
type locked struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
