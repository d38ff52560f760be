package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// membership is in which cgroups this process is, and where they are mounted.
type membership struct {
	groups string // /proc/self/cgroup
	mounts string // /proc/self/mountinfo
	// systemd says that the machine's cgroups are systemd's, and only those that it
	// delegates are for others.
	systemd bool
}

// ownCgroups is this process's; one that can't be read has none.
func ownCgroups() *membership {
	m := new(membership)
	if text, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		m.groups = string(text)
	}
	if text, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		m.mounts = string(text)
	}
	_, err := os.Stat("/run/systemd/system") // as sd_booted(3) does
	m.systemd = err == nil
	return m
}

// home is a directory below which we may make cgroups.
type home struct {
	dir string
	v2  bool
}

// mount is one of a cgroup hierarchy.
type mount struct{ root, point, kind, options string }

func (m *membership) mountsOf(kind string) (out []mount) {
	for line := range strings.Lines(m.mounts) {
		before, after, found := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if found && len(left) > 4 && len(right) > 2 && right[0] == kind {
			out = append(out, mount{unescape.Replace(left[3]), unescape.Replace(left[4]), right[0], right[2]})
		}
	}
	return out
}

// unescape undoes what the kernel writes for characters that divide.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// groupOf is this process's group in the hierarchy of a controller; of version 2
// with an empty name.
func (m *membership) groupOf(controller string) (path string, found bool) {
	for line := range strings.Lines(m.groups) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), controller) {
			return parts[2], true
		}
	}
	return "", false
}

// directory is where a group is seen here.
func (m mount) directory(group string) (string, bool) {
	rel, err := filepath.Rel(m.root, group)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	return filepath.Join(m.point, rel), true
}

// find returns where to make groups with a controller: in version 2 where that has
// it, else in version 1.
func (m *membership) find(controller string) (home, error) {
	var why error
	if group, found := m.groupOf(""); found {
		for _, at := range m.mountsOf("cgroup2") {
			dir, seen := at.directory(group)
			if !seen {
				continue
			}
			dir = m.delegatedFrom(dir)
			if !hasController(dir, controller) {
				continue
			}
			if why = m.usable(dir, "cgroup.subtree_control"); why == nil {
				return home{dir, true}, nil
			}
		}
	}
	if group, found := m.groupOf(controller); found {
		for _, at := range m.mountsOf("cgroup") {
			if !slices.Contains(strings.Split(at.options, ","), controller) {
				continue
			}
			dir, seen := at.directory(group)
			if !seen {
				continue
			}
			if why = m.usable(dir, "cgroup.procs"); why == nil {
				return home{dir, false}, nil
			}
		}
	}
	text := fmt.Sprintf("no %s cgroup is delegated to this process", controller)
	if why != nil {
		return home{}, fmt.Errorf("%s: %w", text, why)
	}
	return home{}, errors.New(text)
}

func hasController(dir, name string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(text)), name)
}

// delegatedFrom is the group that was delegated where this process is in one below
// it: systemd's DelegateSubgroup=, or our own leaf.
func (m *membership) delegatedFrom(dir string) string {
	if parent := filepath.Dir(dir); !delegated(dir) && (delegated(parent) || filepath.Base(dir) == ourLeaf && hasDir(parent)) {
		return parent
	}
	return dir
}

func hasDir(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.procs"))
	return err == nil
}

// delegated reports whether systemd has marked a group as for us.
func delegated(dir string) bool {
	value := make([]byte, 8)
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(dir, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// usable says why no group can be made in a directory; file is one in it that has to
// be written.
func (m *membership) usable(dir, file string) error {
	for _, path := range []string{dir, filepath.Join(dir, file)} {
		if err := unix.Access(path, unix.W_OK); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
	if root := err != nil; m.systemd && !root && !delegated(dir) {
		return fmt.Errorf("%s is systemd's", dir)
	}
	return nil
}

// ourLeaf is where the daemon's own processes go: in version 2 a group with
// processes of its own can't hand controllers on to groups below it.
const ourLeaf = "daemon"
