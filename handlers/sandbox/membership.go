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

// membership describes the cgroups of this process, and where cgroups are mounted.
type membership struct {
	groups string // /proc/self/cgroup
	mounts string // /proc/self/mountinfo
	// systemd is set if systemd manages the machine's cgroups. Then only delegated groups may
	// be used.
	systemd bool
}

// ownCgroups returns the membership of this process; it is empty if it cannot be read.
func ownCgroups() *membership {
	m := new(membership)
	if text, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		m.groups = string(text)
	}
	if text, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		m.mounts = string(text)
	}
	_, err := os.Stat("/run/systemd/system") // the check of sd_booted(3)
	m.systemd = err == nil
	return m
}

// cgroupDir is a directory below which the daemon may create cgroups.
type cgroupDir struct {
	dir string
	v2  bool
}

// mount is a mount of a cgroup hierarchy.
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

// unescape decodes the kernel's escapes of separators.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// groupOf returns this process's group in the hierarchy of a controller; an empty name selects
// version 2.
func (m *membership) groupOf(controller string) (path string, found bool) {
	for line := range strings.Lines(m.groups) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), controller) {
			return parts[2], true
		}
	}
	return "", false
}

// pathOf returns the path of a group below this mount.
func (m mount) pathOf(group string) (string, bool) {
	rel, err := filepath.Rel(m.root, group)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	return filepath.Join(m.point, rel), true
}

// findController returns the directory for groups with a controller: in version 2 if that has the
// controller, else in version 1.
func (m *membership) findController(controller string) (cgroupDir, error) {
	var why error
	if group, found := m.groupOf(""); found {
		for _, at := range m.mountsOf("cgroup2") {
			dir, seen := at.pathOf(group)
			if !seen {
				continue
			}
			dir = m.delegatedFrom(dir)
			if !hasController(dir, controller) {
				continue
			}
			if why = m.checkUsable(dir, "cgroup.subtree_control"); why == nil {
				return cgroupDir{dir, true}, nil
			}
		}
	}
	if group, found := m.groupOf(controller); found {
		for _, at := range m.mountsOf("cgroup") {
			if !slices.Contains(strings.Split(at.options, ","), controller) {
				continue
			}
			dir, seen := at.pathOf(group)
			if !seen {
				continue
			}
			if why = m.checkUsable(dir, "cgroup.procs"); why == nil {
				return cgroupDir{dir, false}, nil
			}
		}
	}
	text := fmt.Sprintf("no %s cgroup is delegated to this process", controller)
	if why != nil {
		return cgroupDir{}, fmt.Errorf("%s: %w", text, why)
	}
	return cgroupDir{}, errors.New(text)
}

func hasController(dir, name string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(text)), name)
}

// delegatedFrom returns the delegated group if this process is in a child of it: systemd's
// DelegateSubgroup=, or daemonGroup.
func (m *membership) delegatedFrom(dir string) string {
	if parent := filepath.Dir(dir); !isDelegated(dir) && (isDelegated(parent) || filepath.Base(dir) == daemonGroup && hasDir(parent)) {
		return parent
	}
	return dir
}

func hasDir(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.procs"))
	return err == nil
}

// isDelegated reports whether systemd has marked a group as delegated.
func isDelegated(dir string) bool {
	value := make([]byte, 8)
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(dir, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// checkUsable returns an error if groups cannot be created in a directory. file is a file in it that
// must be writable.
func (m *membership) checkUsable(dir, file string) error {
	for _, path := range []string{dir, filepath.Join(dir, file)} {
		if err := unix.Access(path, unix.W_OK); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
	if root := err != nil; m.systemd && !root && !isDelegated(dir) {
		return fmt.Errorf("%s is systemd's", dir)
	}
	return nil
}

// daemonGroup is the group of the daemon's own processes: in version 2, a group with processes cannot
// enable controllers for groups below it.
const daemonGroup = "daemon"
