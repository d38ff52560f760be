package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestRefusals(t *testing.T) {
	needsLinux(t)
	dir := openDir(t)
	nowhere := &membership{}
	systemds := &membership{systemd: true}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what     string
		settings Settings
		where    *membership
		want     string
	}{
		{"memory", Settings{Limits: Limits{Memory: 1 << 30}}, nowhere, "limits.memory: no memory cgroup is delegated to this process; run drover under systemd with Delegate=cpu memory pids"},
		{"cpu", Settings{Limits: Limits{CPU: 1}}, systemds, "limits.cpu: no cpu cgroup is delegated to this process; "},
		{"processes", Settings{Limits: Limits{Processes: 10}}, nowhere, "limits.processes: no pids cgroup is delegated to this process; "},
		{"all", Settings{Limits: Limits{Memory: 1 << 30, CPU: 1, Processes: 10}}, nowhere, "\nlimits.processes: "},
		{"read", Settings{Strict: true, Read: []string{filepath.Join(dir, "none")}}, nowhere, "sandbox: " + filepath.Join(dir, "none") + " cannot be given to workers: no such file or directory"},
		{"data in the app", Settings{Strict: true, DataDir: filepath.Join(dir, ".drover", "new")}, nowhere,
			"sandbox: strict lets workers read " + dir + ", and data_dir (" + filepath.Join(dir, ".drover", "new") + ") is in it, which is not for them; set data_dir to another place, such as /var/lib/drover, or set user"},
		{"data in what is written", Settings{Strict: true, DataDir: "/var/lib/drover", Write: []string{"/var"}}, nowhere, "sandbox: strict lets workers read /var, and data_dir"},
	} {
		c.settings.Dir = dir
		_, _, err := c.settings.checkSupport(c.where)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; wanted %s", c.what, err, c.want)
		}
		if made, err := openConfinement(c.settings, c.where); err == nil {
			t.Errorf("%s: it is made all the same", c.what)
			_ = made.Close()
		}
	}
	if err := Check(Settings{Dir: dir, DataDir: filepath.Join(filepath.Dir(dir), "other")}); err != nil {
		t.Error(err)
	}
}

func TestRefusalsToRoot(t *testing.T) {
	needsRoot(t)
	for _, c := range []struct {
		settings Settings
		want     string
	}{
		{Settings{User: "no-such-user"}, `user: there is no user "no-such-user" on this machine`},
		{Settings{Group: "no-such-group"}, `group: there is no group "no-such-group" on this machine`},
		{Settings{User: "54321"}, "user: no user on this machine has the ID 54321, so its group is unknown; set group"},
	} {
		if err := Check(c.settings); err == nil || err.Error() != c.want {
			t.Errorf("%v; wanted %s", err, c.want)
		}
	}
}

// asOther is set when this test binary runs again as another user.
const asOther = "CONFINE_TEST_AS_OTHER"

// TestRefusalsToOthers runs itself again as a user without rights, with its own limits, in no
// cgroup that it may write.
func TestRefusalsToOthers(t *testing.T) {
	if os.Getenv(asOther) != "" {
		for _, c := range []struct {
			settings Settings
			want     string
		}{
			{Settings{User: "root"}, "user: only root may run workers as another; run drover as root, or leave it out"},
			{Settings{Group: "root"}, "group: only root may run workers as another; run drover as root, or leave it out"},
			{Settings{Limits: Limits{OpenFiles: 1 << 20}}, "limits.open_files: it is 1048576, and this process may have 4096 at most; raise that (systemd: Limit...=, a shell: ulimit -H), or request less"},
			{Settings{Limits: Limits{Memory: 1 << 30}}, "limits.memory: no memory cgroup is delegated to this process: "},
		} {
			if err := Check(c.settings); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v; wanted %s", err, c.want)
			}
		}
		return
	}
	nobody := someUser(t)
	dir := openDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "test"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	cmd := exec.Command("sh", "-c", `ulimit -n 4096 && exec "$0" -test.run '^TestRefusalsToOthers$'`, filepath.Join(dir, "test"))
	cmd.Dir, cmd.Env = dir, append(os.Environ(), asOther+"=1", "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestElsewhere(t *testing.T) {
	err := Settings{User: "x", Strict: true, Limits: Limits{OpenFiles: 5}}.requireLinux()
	if err == nil || !strings.HasPrefix(err.Error(), "limits, user, sandbox: this needs Linux") {
		t.Errorf("%v", err)
	}
	if err := (Settings{}).requireLinux(); err != nil {
		t.Errorf("%v", err)
	}
}

// A directory that others can write to may contain their files.
func TestAStrangersDirectoryIsNotUsed(t *testing.T) {
	needsLinux(t)
	t.Setenv("TMPDIR", t.TempDir())
	place := filepath.Join(os.TempDir(), prefix+itoa(os.Geteuid()))
	if err := os.Symlink(t.TempDir(), place); err != nil {
		t.Fatal(err)
	}
	if c, err := claimTemporary(); err == nil || !strings.Contains(err.Error(), place+" is not this user's directory; remove it, or set TMPDIR to another place") {
		t.Errorf("%+v, %v", c, err)
	}
}

// The next daemon removes the leftovers of a killed daemon, but not the files of a running one.
func TestLeftovers(t *testing.T) {
	needsLinux(t)
	parent := t.TempDir()
	first, err := newClaim(parent, os.RemoveAll)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(first.dir, "file"), "x")
	second, err := newClaim(parent, os.RemoveAll)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(first.dir, "file")); err != nil {
		t.Errorf("one that lives was removed: %v", err)
	}
	if err := first.lock.Close(); err != nil { // as it is when its process is gone
		t.Fatal(err)
	}
	third, err := newClaim(parent, os.RemoveAll)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("one that was left is still there: %v", err)
	}
	if err := errors.Join(second.release(os.RemoveAll), third.release(os.RemoveAll)); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
