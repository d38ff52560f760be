//go:build !linux

package hostinfo

func affinity() (cpus map[int]bool, known bool) { return nil, false }
