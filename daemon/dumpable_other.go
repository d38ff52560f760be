//go:build !linux

package daemon

// hideFromPeers does nothing: only Linux shows a process to its peers in /proc.
func hideFromPeers() error { return nil }
