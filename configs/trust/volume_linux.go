package trust

import "golang.org/x/sys/unix"

// readOnlyVolume reports whether a path's volume is mounted read-only.
func readOnlyVolume(path string) bool {
	var of unix.Statfs_t
	return unix.Statfs(path, &of) == nil && of.Flags&unix.ST_RDONLY != 0
}
