package daemon

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestSecretsOfTheConfigurationStayInTheDaemon runs functions that search for a variable that the
// configuration reads: in their own environment, and in that of each process that they can read.
// They run as another user than root, since root can read everything.
func TestSecretsOfTheConfigurationStayInTheDaemon(t *testing.T) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("only root on Linux can run the daemon as another user; run the tests as root")
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	const look = `for p in /proc/[0-9]*; do tr '\0' '\n' < $$p/environ; done 2>/dev/null | grep -c the-secret-value`
	dir := write(t, map[string]string{"drover.yaml": `
connections:
  bus: {connection_string: "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=${BUS_KEY}"}
  here: {nats: embedded}
functions:
  looks: {trigger: {nats: {connection: here}}, handler: {exec: {command: [sh, -c, "` + strings.ReplaceAll(look, `\`, `\\`) + `; echo MODE $$MODE KEY $$BUS_KEY"]}}}
  asks: {trigger: {nats: {connection: here}}, handler: {exec: {command: [sh, -c, "echo KEY $$BUS_KEY"], environment: {pass: [PATH, BUS_KEY]}}}}
`})
	const nobody = 65534
	for _, own := range []string{filepath.Dir(dir), dir, filepath.Join(dir, "drover.yaml"), filepath.Dir(path)} {
		if err := os.Chmod(own, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	for function, want := range map[string]string{"looks": "0\nMODE plain KEY", "asks": "KEY the-secret-value"} {
		cmd := exec.Command(path, "invoke", function, "-c", filepath.Join(dir, "drover.yaml"), "--body", "x")
		cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "MODE=plain", "BUS_KEY=the-secret-value"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, and not %q:\n%s", function, err, want, out)
		}
	}
}
