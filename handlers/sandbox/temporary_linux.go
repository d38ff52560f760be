package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// diskSize returns the bytes that a file uses on disk, without holes, and its identity.
func diskSize(info fs.FileInfo) (int64, inode) {
	if s, known := info.Sys().(*syscall.Stat_t); known {
		return s.Blocks * 512, inode{s.Dev, s.Ino}
	}
	return info.Size(), inode{}
}

// openDeleted returns the sizes of deleted, still open files, by the worker's directory in which
// they were. It scans only processes of a reaper, which it recognizes by their mark, the limit
// on locks.
func openDeleted(below string, worker func(dir string) bool) map[string]int64 {
	sizes, found := make(map[string]int64), make(map[inode]bool)
	processes, _ := os.ReadDir("/proc")
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		var locks unix.Rlimit
		if err != nil || unix.Prlimit(pid, unix.RLIMIT_LOCKS, nil, &locks) != nil || locks.Cur == unix.RLIM_INFINITY {
			continue
		}
		fds := filepath.Join("/proc", p.Name(), "fd")
		open, _ := os.ReadDir(fds)
		for _, fd := range open {
			path := filepath.Join(fds, fd.Name())
			name, err := os.Readlink(path)
			if err != nil || !strings.HasPrefix(name, below) || !strings.HasSuffix(name, " (deleted)") {
				continue
			}
			var s unix.Stat_t
			if unix.Stat(path, &s) != nil || s.Nlink > 0 || found[inode{s.Dev, s.Ino}] {
				continue
			}
			found[inode{s.Dev, s.Ino}] = true
			for dir := filepath.Dir(name); len(dir) >= len(below); dir = filepath.Dir(dir) {
				if worker(dir) {
					sizes[dir] += max(s.Blocks*512, leastFile)
					break
				}
			}
		}
	}
	return sizes
}
