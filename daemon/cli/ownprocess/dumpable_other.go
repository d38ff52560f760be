//go:build !linux

package ownprocess

// HideFromPeers does nothing: only Linux has a process in /proc for others to read.
func HideFromPeers() error { return nil }
