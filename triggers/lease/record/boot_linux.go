package record

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bootID returns an ID that each boot of each machine has for itself.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading the ID of the boot: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// sinceBoot returns the time since the boot, including the time of suspends.
func sinceBoot() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("reading the time since the boot: %w", err)
	}
	return time.Duration(now.Nano()), nil
}

// fileID returns the device and the inode of a file.
func fileID(path string) (string, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return "", fmt.Errorf("reading the inode of %s: %w", path, err)
	}
	return fmt.Sprintf("%d:%d", stat.Dev, stat.Ino), nil
}
