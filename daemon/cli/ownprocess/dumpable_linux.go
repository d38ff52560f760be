package ownprocess

import "golang.org/x/sys/unix"

// HideFromPeers prevents other processes of the same user from reading /proc/PID/environ and the
// memory of this process. Workers run as that user, and the environment has connection strings.
func HideFromPeers() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
