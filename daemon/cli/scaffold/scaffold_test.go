package scaffold

import (
	"runtime/debug"
	"testing"
)

func TestTheVersionThatAProgramRequires(t *testing.T) {
	drover := func(version string) debug.Module { return debug.Module{Path: modulePath, Version: version} }
	replaced := drover("v1.2.3")
	replaced.Replace = &debug.Module{Path: "../drover"}
	released1, old := drover("v1.2.3"), debug.Module{Path: "orders", Version: "v9.9.9"}
	const untagged = "v1.2.4-0.20261125215732-a8cb8ea00000"
	downloaded := drover(untagged)
	downloaded.Sum = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for _, test := range []struct {
		name string
		info debug.BuildInfo
		want string
	}{
		{"drover itself", debug.BuildInfo{Main: released1}, "v1.2.3"},
		{"a tree", debug.BuildInfo{Main: drover("(devel)")}, ""},
		{"a commit without a tag", debug.BuildInfo{Main: drover(untagged)}, ""},
		{"a commit before the first tag", debug.BuildInfo{Main: drover("v0.0.0-20261125215732-a8cb8ea00000")}, ""},
		{"go install of a commit", debug.BuildInfo{Main: downloaded}, untagged},
		{"a tree with changes", debug.BuildInfo{Main: drover(untagged + "+dirty")}, ""},
		{"a program of a user's", debug.BuildInfo{Main: old, Deps: []*debug.Module{&released1}}, "v1.2.3"},
		{"one with a replace", debug.BuildInfo{Main: old, Deps: []*debug.Module{&replaced}}, ""},
	} {
		if got, found := releasedVersion(&test.info); got != test.want || found != (test.want != "") {
			t.Errorf("%s: %q, %v; want %q", test.name, got, found, test.want)
		}
	}
}
