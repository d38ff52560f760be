package buildinfo

import (
	"runtime/debug"
	"testing"
)

func TestCommit(t *testing.T) {
	revision, when := debug.BuildSetting{Key: "vcs.revision", Value: "b84e554"}, debug.BuildSetting{Key: "vcs.time", Value: "2026-12-01T09:36:35Z"}
	for want, settings := range map[string][]debug.BuildSetting{
		"unknown":                       {{Key: "GOOS", Value: "linux"}},
		"b84e554":                       {revision},
		"b84e554, 2026-12-01T09:36:35Z": {when, revision, {Key: "vcs.modified", Value: "false"}},
		"b84e554, 2026-12-01T09:36:35Z, modified": {when, revision, {Key: "vcs.modified", Value: "true"}},
	} {
		if got := describeCommit(settings); got != want {
			t.Errorf("%v is %q, want %q", settings, got, want)
		}
	}
}
