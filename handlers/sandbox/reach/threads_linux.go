package reach

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// status reads the fields of a thread by their names.
func status(thread uint32) map[string]string {
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

// processOf is the number of a thread's process; -1 if it is gone.
func processOf(thread uint32) int {
	if pid, err := strconv.Atoi(status(thread)["Tgid"]); err == nil {
		return pid
	}
	return -1
}

// signalled reports whether a signal waits for a thread to handle it. While the daemon
// makes its call only those come through that end it.
func signalled(thread uint32) bool {
	fields := status(thread)
	set := func(name string) uint64 {
		n, _ := strconv.ParseUint(fields[name], 16, 64)
		return n
	}
	return (set("SigPnd")|set("ShdPnd"))&set("SigCgt")&^set("SigBlk") != 0
}
