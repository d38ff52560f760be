// Package buildinfo has the version of this program and the commit that it was built from.
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

// Commit returns the commit that this program was built from, and its time, as in
// "b84e554…, 2026-12-01T09:36:35Z"; with ", modified" if the source had uncommitted changes. It
// returns unknown if the build has no version control information.
func Commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return describeCommit(info.Settings)
}

func describeCommit(settings []debug.BuildSetting) string {
	values := make(map[string]string)
	for _, s := range settings {
		values[s.Key] = s.Value
	}
	out := values["vcs.revision"]
	if out == "" {
		return "unknown"
	}
	if when := values["vcs.time"]; when != "" {
		out += ", " + when
	}
	if values["vcs.modified"] == "true" {
		out += ", modified"
	}
	return out
}
