// Package buildinfo has the version of this program.
package buildinfo

import (
	"cmp"
	"runtime/debug"
)

// version is set by the linker if the build has no version control information, as in the
// Dockerfile.
var version string

// Version returns the version that this program was built as, or unknown.
func Version() string {
	name := version
	if info, ok := debug.ReadBuildInfo(); name == "" && ok {
		name = info.Main.Version
	}
	return cmp.Or(name, "unknown")
}
