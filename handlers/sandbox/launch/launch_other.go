//go:build !linux

package launch

import (
	"errors"
	"io"
)

// performSteps exists only on Linux; elsewhere the stage is never started.
func performSteps(io.ReadWriter, int, string, []string) (string, error) {
	return "starting", errors.New("this system has no launch stage")
}

// LandlockABI returns 0: there is no landlock.
func LandlockABI() int { return 0 }

// CallsKnown returns false: there is no seccomp.
func CallsKnown() bool { return false }

// MayDropCapabilities returns false: there are no capabilities.
func MayDropCapabilities() bool { return false }

// MayChangeIdentity returns false: not implemented here.
func MayChangeIdentity() bool { return false }

// MayRaiseLimits returns false: not implemented here.
func MayRaiseLimits() bool { return false }
