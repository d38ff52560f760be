// Package exit has the errors by which a command chooses its exit status. It is a separate
// package, so that the packages of single commands can return them too. docs/commands.md lists the
// statuses.
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

// ErrCodeReported ends a command that has printed why the code of a function does not load. The program
// prints nothing more, and exits with status 5.
var ErrCodeReported = errors.New("the code does not load, as reported")

// CodeError reports that the code of a function does not load. The program prints Err, and exits with
// status 5.
type CodeError struct{ Err error }

// Error implements error.
func (e *CodeError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *CodeError) Unwrap() error { return e.Err }
