package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeV2 is a directory that looks like a version 2 group with a process, for machines without such
// controllers.
func fakeV2(t *testing.T, group string, files map[string]string) (*membership, string) {
	t.Helper()
	mountPoint := t.TempDir()
	dir := filepath.Join(mountPoint, group)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return &membership{
		groups: "0::" + group + "\n",
		mounts: fmt.Sprintf("23 1 0:1 / / rw - ext4 /dev/sda rw\n36 35 0:30 / %s rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", mountPoint),
	}, dir
}

func contents(t *testing.T, dir string, files ...string) (out []string) {
	t.Helper()
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.TrimSpace(string(text)))
	}
	return out
}

var every = Limits{Memory: 512 << 20, CPU: 1.5, Processes: 64}

func TestVersion2(t *testing.T) {
	where, dir := fakeV2(t, "/system.slice/drover.service", map[string]string{
		"cgroup.controllers": "cpuset cpu io memory pids\n", "cgroup.subtree_control": "\n", "cgroup.procs": "", "cgroup.type": "domain\n",
	})
	groups, err := openCgroups(where, every.neededControllers())
	if err != nil {
		t.Fatal(err)
	}
	if len(groups.claims) != 1 || !groups.v2[0] {
		t.Fatalf("%+v", groups)
	}
	own := groups.claims[0].dir
	for _, at := range []string{dir, own} {
		if got := contents(t, at, "cgroup.subtree_control"); got[0] != "+memory +cpu +pids" {
			t.Errorf("%s hands on %q", at, got)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, daemonGroup)); err != nil {
		t.Errorf("there is no group for the daemon itself: %v", err)
	}
	// A group of the kernel's has its files; memory.swap.max only where it is counted.
	dirs, join, err := groups.makeGroups("worker-1", every)
	if err != nil || len(dirs) != 1 || !slices.Equal(join, []string{filepath.Join(dirs[0], "cgroup.procs")}) {
		t.Fatalf("%v, %v, %v", dirs, join, err)
	}
	got := contents(t, dirs[0], "memory.max", "memory.oom.group", "cpu.max", "pids.max")
	if !slices.Equal(got, []string{"536870912", "1", "150000 100000", "64"}) {
		t.Errorf("%q", got)
	}
	write(t, filepath.Join(dirs[0], "memory.swap.max"), "max")
	if err := every.setV2(dirs[0]); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, dirs[0], "memory.swap.max"); got[0] != "0" {
		t.Errorf("swap: %q", got)
	}
	for text, want := range map[string]bool{"low 0\noom 1\noom_kill 0\noom_group_kill 0\n": false, "oom 2\noom_kill 2\n": true} {
		write(t, filepath.Join(dirs[0], "memory.events"), text)
		if oomKilled(dirs[0]) != want {
			t.Errorf("%q", text)
		}
	}
}

// TestVersion2Moves: a group with processes cannot delegate its controllers.
func TestVersion2Moves(t *testing.T) {
	where, dir := fakeV2(t, "/a", map[string]string{
		"cgroup.controllers": "memory", "cgroup.subtree_control": "cpu", "cgroup.procs": "17\n", "cgroup.type": "domain\n",
	})
	// Nothing moves in a directory that only looks like one.
	if _, err := openCgroups(where, []neededController{{"memory", "memory"}}); err == nil || !strings.Contains(err.Error(), "ever new processes come to") {
		t.Errorf("%v", err)
	}
	if got := contents(t, filepath.Join(dir, daemonGroup), "cgroup.procs"); got[0] != "17" {
		t.Errorf("moved was %q", got)
	}
	// Controllers that are already enabled stay enabled.
	write(t, filepath.Join(dir, "cgroup.subtree_control"), "cpu memory")
	if err := delegateControllers(dir, "+memory"); err != nil {
		t.Error(err)
	}
}

func TestMembership(t *testing.T) {
	full := map[string]string{"cgroup.controllers": "memory", "cgroup.subtree_control": "", "cgroup.procs": "", "cgroup.type": "domain"}
	where, dir := fakeV2(t, "/a/b", full)
	if got, err := where.findController("memory"); err != nil || got != (cgroupDir{dir, true}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := where.findController("pids"); err == nil || err.Error() != "no pids cgroup is delegated to this process" {
		t.Errorf("%v", err)
	}
	// systemd marks the cgroups that it delegates.
	where.systemd = true
	if _, err := where.findController("memory"); err == nil || err.Error() != "no memory cgroup is delegated to this process: "+dir+" is systemd's" {
		t.Errorf("%v", err)
	}
	if err := unix.Setxattr(dir, "user.delegate", []byte("1"), 0); err != nil {
		t.Logf("not tried: marking a directory: %v", err)
	} else {
		if got, err := where.findController("memory"); err != nil || got.dir != dir {
			t.Errorf("a delegated one: %v, %v", got, err)
		}
		// One below it is ours, too: DelegateSubgroup=.
		below := filepath.Join(dir, "main")
		if err := os.Mkdir(below, 0o755); err != nil {
			t.Fatal(err)
		}
		where.groups = "0::/a/b/main\n"
		if got, err := where.findController("memory"); err != nil || got.dir != dir {
			t.Errorf("one below a delegated one: %v, %v", got, err)
		}
	}

	// In a container, the mount's root is the container's group.
	where = &membership{
		groups: "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
		mounts: fmt.Sprintf("36 35 0:30 /docker/abc %s rw - cgroup cgroup rw,memory\n37 35 0:31 /elsewhere /nowhere rw - cgroup cgroup rw,cpu,cpuacct\n", strings.ReplaceAll(dir, " ", `\040`)),
	}
	if got, err := where.findController("memory"); err != nil || got != (cgroupDir{dir, false}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := where.findController("cpu"); err == nil {
		t.Errorf("one that is not seen here: %v", got)
	}
	if err := os.Remove(filepath.Join(dir, "cgroup.procs")); err != nil {
		t.Fatal(err)
	}
	if _, err := where.findController("memory"); err == nil || !strings.Contains(err.Error(), "cgroup.procs: no such file") {
		t.Errorf("%v", err)
	}
}

// TestRemoveCgroup removes a real group with processes and a child group, of either version.
func TestRemoveCgroup(t *testing.T) {
	needsRoot(t)
	m := ownCgroups()
	tried := 0
	for _, kind := range []struct{ fs, controller string }{{"cgroup2", ""}, {"cgroup", "pids"}} {
		group, found := m.groupOf(kind.controller)
		for _, at := range m.mountsOf(kind.fs) {
			parent, seen := at.pathOf(group)
			if kind.controller != "" && !slices.Contains(strings.Split(at.options, ","), kind.controller) || !found || !seen {
				continue
			}
			tried++
			first, err := newClaim(parent, removeCgroup)
			if err != nil {
				t.Fatal(err)
			}
			var sleepers []*exec.Cmd
			for _, dir := range []string{filepath.Join(first.dir, "worker"), filepath.Join(first.dir, "worker", "below")} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				sleeper := exec.Command("sleep", "1000")
				if err := sleeper.Start(); err != nil {
					t.Fatal(err)
				}
				if err := writeSetting(dir, "cgroup.procs", itoa(sleeper.Process.Pid)); err != nil {
					t.Fatal(err)
				}
				sleepers = append(sleepers, sleeper)
			}
			if err := first.lock.Close(); err != nil { // as it is when its daemon was killed
				t.Fatal(err)
			}
			made := make(chan error)
			go func() {
				next, err := newClaim(parent, removeCgroup)
				if err == nil {
					err = next.release(removeCgroup)
				}
				made <- err
			}()
			for _, sleeper := range sleepers {
				var exit *exec.ExitError
				if err := sleeper.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Errorf("%s: %v", kind.fs, err)
				}
			}
			if err := <-made; err != nil {
				t.Errorf("%s: %v", kind.fs, err)
			}
			if _, err := os.Stat(first.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", first.dir, err)
			}
		}
	}
	if tried == 0 {
		t.Skip("this needs cgroups that it may write")
	}
}
