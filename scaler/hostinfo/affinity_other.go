//go:build !linux

package hostinfo

func allowedCPUs() (cpus map[int]bool, known bool) { return nil, false }
