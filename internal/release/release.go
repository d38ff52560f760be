// Package release builds the files that users install: static binaries in archives, a Debian package,
// wheels, a bill of materials for each, and checksums. The same commit and the same version of Go produce
// the same bytes, in any directory. `make release` calls it; only one release at a time may use a
// directory.
package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/internal/wheel"
)

// Build builds everything and returns the names of the files.
func Build(ctx context.Context, cfg Config) ([]string, error) {
	chosen, err := chooseTargets(cfg.Only)
	if err != nil {
		return nil, err
	}
	source, err := filepath.Abs(cfg.Source)
	if err != nil {
		return nil, err
	}
	cfg.Source = source
	if err := emptyDirectory(cfg.Out); err != nil {
		return nil, err
	}
	modFile, err := prepareModule(ctx, source)
	if err != nil {
		return nil, err
	}
	staging, err := os.MkdirTemp("", "drover-release-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(staging) }()
	for _, target := range chosen {
		p, err := buildProgram(ctx, cfg, modFile, target, staging)
		if err == nil {
			err = packProgram(ctx, cfg, p)
		}
		if err != nil {
			return nil, fmt.Errorf("building for %s: %w", target, err)
		}
	}
	return writeChecksums(cfg.Out)
}

func chooseTargets(only string) ([]Target, error) {
	if only == "" {
		return targets, nil
	}
	var names []string
	for _, t := range targets {
		if t.String() == only {
			return []Target{t}, nil
		}
		names = append(names, t.String())
	}
	return nil, fmt.Errorf("no release is built for %q; choose one of %s", only, strings.Join(names, ", "))
}

// emptyDirectory makes a directory, and removes the files of an earlier release from it.
func emptyDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // others may read a release
		return fmt.Errorf("making the directory for the release: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reading the directory for the release: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, "drover") && name != checksumFile {
			return fmt.Errorf("%s has %s, which is not part of a release; name an empty directory", dir, name)
		}
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("removing an earlier release: %w", err)
		}
	}
	return nil
}

// buildProgram compiles drover for a target, and reads its version from the binary.
func buildProgram(ctx context.Context, cfg Config, modFile string, target Target, staging string) (*program, error) {
	fmt.Fprintf(cfg.Log, "building for %s\n", target)
	p := &program{Target: target, path: filepath.Join(staging, "drover-"+target.OS+"-"+target.Arch)}
	if err := runGo(ctx, cfg.Source, target, "build", "-modfile", modFile, "-trimpath", "-buildvcs=true", "-ldflags", "-s -w", "-o", p.path, "."); err != nil {
		return nil, err
	}
	info, err := buildinfo.ReadFile(p.path)
	if err != nil {
		return nil, fmt.Errorf("reading the version of the program: %w", err)
	}
	p.version = info.Main.Version
	p.time = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			if p.time, err = time.Parse(time.RFC3339, s.Value); err != nil {
				return nil, fmt.Errorf("reading the time of the commit: %w", err)
			}
		}
	}
	switch {
	case !strings.HasPrefix(p.version, "v"):
		return nil, fmt.Errorf("the program has no version, because %s is a copy or a git worktree; build in a clone of the repository", cfg.Source)
	case strings.Contains(p.version, "dirty") && !cfg.Dirty:
		return nil, errors.New("the source has uncommitted changes, so the build cannot be reproduced; commit them, or use -dirty")
	}
	return p, nil
}

// packProgram writes the archive, the packages and the bill of materials of one program.
func packProgram(ctx context.Context, cfg Config, p *program) error {
	if err := writeArchive(ctx, cfg, p); err != nil {
		return fmt.Errorf("the archive: %w", err)
	}
	if err := writeWheel(cfg, p); err != nil {
		return fmt.Errorf("the wheel: %w", err)
	}
	if p.OS == runtime.GOOS && p.Arch == runtime.GOARCH {
		// The library for tests and editors, the same for all platforms.
		if err := runCommand(exec.CommandContext(ctx, p.path, "worker", "wheel", cfg.Out)); err != nil {
			return fmt.Errorf("the Python library: %w", err)
		}
	}
	if cfg.NFPM != "" && p.OS == "linux" {
		if err := writeDeb(ctx, cfg, p); err != nil {
			return fmt.Errorf("the Debian package: %w", err)
		}
	}
	if cfg.SBOM != "" {
		if err := writeSBOM(ctx, cfg, p); err != nil {
			return fmt.Errorf("the bill of materials: %w", err)
		}
	}
	return nil
}

func writeWheel(cfg Config, p *program) error {
	content, err := os.ReadFile(p.path)
	if err != nil {
		return err
	}
	w := wheel.Wheel{
		Name: "drover-cli", Version: wheel.Version(p.version), Tag: p.wheelTag, RequiresPython: ">=3.9",
		Summary:     "The command drover: runs functions on the messages of a queue, on HTTP requests and on timers",
		Description: "This wheel contains the program `drover`. It does not need Go.\n\nhttps://github.com/drover-run/drover\n",
		Scripts:     []wheel.File{{Path: "drover", Content: content}},
	}
	var out bytes.Buffer
	if err := w.Write(&out); err != nil {
		return err
	}
	return writeFile(filepath.Join(cfg.Out, w.FileName()), out.Bytes())
}

// writeSBOM writes the bill of materials, in CycloneDX format: the modules in the program. It has no
// serial number and no time, because they would differ each time.
func writeSBOM(ctx context.Context, cfg Config, p *program) error {
	out, err := filepath.Abs(filepath.Join(cfg.Out, p.fileName("cdx.json")))
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, cfg.SBOM, "app", "-json", "-std", "-noserial", "-notimestamp", "-licenses", "-main", ".", "-output", out, cfg.Source)
	command.Env = goEnviron(p.Target)
	if err := runCommand(command); err != nil {
		return err
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	if text, err = withVersion(text, p.version); err != nil {
		return err
	}
	return writeFile(out, text)
}

// withVersion returns a bill of materials with another version of the program.
func withVersion(text []byte, version string) ([]byte, error) {
	var bill struct {
		Metadata struct{ Component struct{ Version string } }
	}
	if err := json.Unmarshal(text, &bill); err != nil {
		return nil, fmt.Errorf("reading what cyclonedx-gomod has written: %w", err)
	}
	was := bill.Metadata.Component.Version
	if was == "" {
		return nil, errors.New("what cyclonedx-gomod has written has no metadata.component.version")
	}
	return bytes.ReplaceAll(text, []byte(was), []byte(version)), nil
}

// checksumFile has the SHA-256 of each file, as sha256sum reads it.
const checksumFile = "SHA256SUMS"

// writeChecksums writes the checksums, and returns the names of all files.
func writeChecksums(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the release: %w", err)
	}
	var names []string
	var sums bytes.Buffer
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading the release: %w", err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), e.Name())
		names = append(names, e.Name())
	}
	if err := writeFile(filepath.Join(dir, checksumFile), sums.Bytes()); err != nil {
		return nil, fmt.Errorf("writing the checksums: %w", err)
	}
	return slices.Insert(names, 0, checksumFile), nil
}
