//go:build !linux

package configs

// readOnlyVolume is known on Linux only.
func readOnlyVolume(string) bool { return false }
