// Package exit has the errors by which a command chooses its exit status. It is a separate
// package, so that the packages of single commands can return them too.
package exit

import "errors"

// UsageError reports a wrong command line. The program prints it with a hint at --help, and ends
// with exit status 2.
type UsageError string

// Error implements error.
func (e UsageError) Error() string { return string(e) }

// ErrReported ends a command that failed and has printed why. The program prints nothing more,
// and ends with exit status 1.
var ErrReported = errors.New("failed, as reported")
