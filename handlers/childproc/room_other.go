//go:build unix && !linux

package childproc

// CheckLimits always returns nil: the check exists only on Linux.
func CheckLimits(bool) error { return nil }
