//go:build !linux

package ownprocess

// HideFromPeers does nothing: only Linux has /proc, where other processes could read it.
func HideFromPeers() error { return nil }
