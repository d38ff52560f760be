//go:build !linux

package trust

// readOnlyVolume is known on Linux only.
func readOnlyVolume(string) bool { return false }
