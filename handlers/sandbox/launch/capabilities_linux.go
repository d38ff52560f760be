package launch

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// addressOf converts a pointer to a number, as prctl requires.
func addressOf(v *int32) uintptr { return uintptr(unsafe.Pointer(v)) } //nolint:gosec // the kernel takes it so

// readCapabilities returns the capabilities of this thread: two words of 32 bits each.
func readCapabilities() (header unix.CapUserHeader, data [2]unix.CapUserData, err error) {
	header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err = unix.Capget(&header, &data[0])
	return header, data, err
}

// boundCapabilities empties the bounding set. Otherwise root would regain its capabilities when it
// runs a program.
func boundCapabilities(s Spec) error {
	if !s.Unprivileged {
		return nil
	}
	uid := os.Geteuid()
	if s.Identity != nil {
		uid = s.Identity.UID
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // an older kernel has fewer capabilities
		}
		if errors.Is(err, unix.EPERM) && uid != 0 {
			return nil // only root regains capabilities
		}
		if err != nil {
			return fmt.Errorf("capability %d: %w", c, err)
		}
	}
	return nil
}

// dropCapabilities drops all capabilities that are held.
func dropCapabilities(s Spec) error {
	if !s.Unprivileged {
		return nil
	}
	header, data, err := readCapabilities()
	if err != nil {
		return err
	}
	if data == [2]unix.CapUserData{} {
		return nil // most users hold none, and some may not query them
	}
	data = [2]unix.CapUserData{}
	return unix.Capset(&header, &data[0])
}

// MayDropCapabilities reports whether this process can run a program without any capability: root
// needs CAP_SETPCAP for that.
func MayDropCapabilities() bool {
	if os.Geteuid() != 0 {
		return true
	}
	return hasCapability(unix.CAP_SETPCAP)
}

// MayChangeIdentity reports whether this process may run programs as another user.
func MayChangeIdentity() bool {
	return hasCapability(unix.CAP_SETUID) && hasCapability(unix.CAP_SETGID)
}

// MayRaiseLimits reports whether this process may set limits above its own hard limits.
func MayRaiseLimits() bool { return hasCapability(unix.CAP_SYS_RESOURCE) }

func hasCapability(c int) bool {
	_, data, err := readCapabilities()
	return err == nil && data[c/32].Effective&(1<<(c%32)) != 0
}
