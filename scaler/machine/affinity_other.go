//go:build !linux

package machine

func affinity() (cpus map[int]bool, known bool) { return nil, false }
