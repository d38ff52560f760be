package hostinfo

import (
	"os"

	"golang.org/x/sys/unix"
)

// allowedCPUs returns the processors that this process may run on. It includes the effect of a
// cpuset cgroup and of taskset(1).
func allowedCPUs() (cpus map[int]bool, known bool) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &set); err != nil || set.Count() == 0 {
		return nil, false // more processors than the set has room for
	}
	cpus = make(map[int]bool)
	for cpu := 0; len(cpus) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			cpus[cpu] = true
		}
	}
	return cpus, true
}
