// Package trust checks who can change the files that name the commands of a daemon run by root.
package trust

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxLinks bounds a chain of symbolic links. It is the limit of the Linux kernel.
const maxLinks = 40

// CheckConfig rejects, for root, a configuration that another user can change: it names commands,
// so that user could become root. file is the open configuration.
func CheckConfig(path string, file *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("reading the configuration %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil // only the reader chosen by its writer can read a pipe
	}
	if why := howChangeable(path, info); why != "" {
		return refuseConfig(path, path, why)
	}
	// A file can be replaced through its directory, and through the directory of each link to it.
	for range maxLinks {
		dir := filepath.Dir(path)
		of, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("reading the configuration %s: %w", path, err)
		}
		if why := howChangeable(dir, of); why != "" {
			return refuseConfig(path, dir, why)
		}
		target, err := os.Readlink(path)
		if err != nil {
			return nil // the file itself
		}
		if path = target; !filepath.IsAbs(target) {
			path = filepath.Join(dir, target)
		}
	}
	return fmt.Errorf("reading the configuration %s: more than %d symbolic links lead to it", path, maxLinks)
}

func refuseConfig(config, path, why string) error {
	return fmt.Errorf("the configuration %s: %s %s, but drover runs as root; "+
		"run: chown root %s && chmod go-w %s; or run drover as another user", config, path, why, path, path)
}

// howChangeable returns how another user can change a file or a directory; "" if none can. In a
// sticky directory, such as /tmp, only owners can replace files. On a volume that is mounted
// read-only, such as a Kubernetes ConfigMap, the mode has no effect.
func howChangeable(path string, info fs.FileInfo) string {
	owner, known := info.Sys().(*syscall.Stat_t)
	if !known || readOnlyVolume(path) {
		return ""
	}
	switch writable := info.Mode().Perm() & 0o022; {
	case owner.Uid != 0:
		return fmt.Sprintf("belongs to user %d", owner.Uid)
	case writable == 0 || info.IsDir() && info.Mode()&fs.ModeSticky != 0:
		return ""
	case writable&0o002 != 0:
		return "can be written by all users"
	}
	return fmt.Sprintf("can be written by group %d", owner.Gid)
}

// ChangeableBy returns how a user other than root can change the files of a directory of code, for
// a warning; "" if none can, or if this process does not run as root.
func ChangeableBy(dir string) string {
	info, err := os.Stat(dir)
	if os.Geteuid() != 0 || err != nil {
		return ""
	}
	return howChangeable(dir, info)
}
