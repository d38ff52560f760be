//go:build !linux

package launch

import (
	"errors"
	"io"
)

// perform is of Linux; elsewhere nothing starts the stage.
func perform(io.ReadWriter, int, string, []string) (string, error) {
	return "starting", errors.New("this system has no launch stage")
}

// LandlockABI is 0: there is none.
func LandlockABI() int { return 0 }

// CallsKnown is false: there is no seccomp.
func CallsKnown() bool { return false }

// MayDropCapabilities is false: there are none.
func MayDropCapabilities() bool { return false }

// MayChangeIdentity is false: nothing here does it.
func MayChangeIdentity() bool { return false }

// MayRaiseLimits is false, likewise.
func MayRaiseLimits() bool { return false }
