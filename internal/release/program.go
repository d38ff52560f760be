package release

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Target is a platform that drover is built for.
type Target struct {
	OS, Arch string
	wheelTag string // with which pip selects the wheel
}

// The binaries do not link a C library, so the Linux binaries run with both glibc and musl.
var targets = []Target{
	{"linux", "amd64", "py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64"},
	{"linux", "arm64", "py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64"},
	{"darwin", "arm64", "py3-none-macosx_12_0_arm64"},
}

func (t Target) String() string { return t.OS + "/" + t.Arch }

// Config describes a release to build, and the programs to build it with.
type Config struct {
	Source string // the root of the source tree
	Out    string // the directory for the files; files of earlier releases are removed from it
	Only   string // one target, such as linux/amd64; empty: all
	NFPM   string // the program nfpm, for the Debian packages; empty: none
	SBOM   string // the program cyclonedx-gomod, for the bills of materials; empty: none
	Dirty  bool   // build even if there are uncommitted changes
	Log    io.Writer
}

// program is a binary that was built, with its properties for the packages.
type program struct {
	Target
	path    string
	version string    // such as v1.2.0
	time    time.Time // of the commit
}

// fileName returns the name of a file of the release for a platform.
func (p *program) fileName(extension string) string {
	return fmt.Sprintf("drover_%s_%s_%s.%s", strings.TrimPrefix(p.version, "v"), p.OS, p.Arch, extension)
}

// writeFile writes a file of the release, which everyone may read.
func writeFile(path string, content []byte) error {
	return os.WriteFile(path, content, 0o644) //nolint:gosec // as above
}

// goEnviron returns the environment for a build. It replaces the caller's variables that would change the
// bytes of the program.
func goEnviron(target Target) []string {
	return append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOOS="+target.OS, "GOARCH="+target.Arch,
		"GOFLAGS=-p="+cmp.Or(os.Getenv("DROVER_RELEASE_JOBS"), "4"), "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off")
}

func runGo(ctx context.Context, dir string, target Target, args ...string) error {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	command.Env = goEnviron(target)
	return runCommand(command)
}

// runCommand runs a command, and returns its output as an error if it fails.
func runCommand(command *exec.Cmd) error {
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command.Args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
