//go:build unix && !linux

package processes

// Room is for Linux: elsewhere nobody can tell how many processes there are.
func Room(bool) error { return nil }
