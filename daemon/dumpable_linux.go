package daemon

import "golang.org/x/sys/unix"

// hideFromPeers closes /proc/PID/environ and the memory of this process to other
// processes of its user: workers run as the same one, and connection strings are in it.
func hideFromPeers() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
