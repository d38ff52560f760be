package reach

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// threadStatus returns the status fields of a thread by name.
func threadStatus(thread uint32) map[string]string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return nil
	}
	out := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		out[name] = strings.TrimSpace(value)
	}
	return out
}

// processOf returns the process ID of a thread; -1 if it has ended.
func processOf(thread uint32) int {
	if pid, err := strconv.Atoi(threadStatus(thread)["Tgid"]); err == nil {
		return pid
	}
	return -1
}

// hasSignal reports whether a signal is pending for a thread. While the daemon performs a call, the
// thread receives only fatal signals.
func hasSignal(thread uint32) bool {
	fields := threadStatus(thread)
	set := func(name string) uint64 {
		n, _ := strconv.ParseUint(fields[name], 16, 64)
		return n
	}
	return (set("SigPnd")|set("ShdPnd"))&set("SigCgt")&^set("SigBlk") != 0
}
