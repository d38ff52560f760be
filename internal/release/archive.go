package release

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// units are the systemd units in the archives for Linux and in the Debian packages.
var units = []string{"deploy/drover.service", "deploy/drover@.service"}

// writeArchive writes the program and its files, in a directory with the archive's name. The command xz
// compresses it: a quarter smaller than with gzip.
func writeArchive(ctx context.Context, cfg Config, p *program) error {
	from := map[string]string{"drover": p.path, "README.md": "README.md", "CHANGELOG.md": "CHANGELOG.md"}
	if p.OS == "linux" {
		for _, unit := range units {
			from[filepath.Base(unit)] = unit
		}
	}
	directory := strings.TrimSuffix(p.fileName(""), ".")
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(from)) {
		path, mode := from[name], int64(0o644)
		if name == "drover" {
			mode = 0o755
		} else {
			path = filepath.Join(cfg.Source, path)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := addFile(archive, directory+"/"+name, mode, content, p.time); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	compress := exec.CommandContext(ctx, "xz", "--compress", "--stdout", "-9", "--extreme", "--threads=1")
	compress.Stdin = &out
	compressed, err := compress.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w; install it: apt-get install xz-utils", err)
	}
	if err != nil {
		return fmt.Errorf("compressing it with xz: %w", err)
	}
	return writeFile(filepath.Join(cfg.Out, p.fileName("tar.xz")), compressed)
}

// addFile adds a file that belongs to root, with the time of the commit.
func addFile(archive *tar.Writer, name string, mode int64, content []byte, at time.Time) error {
	header := &tar.Header{Name: name, Mode: mode, Size: int64(len(content)), ModTime: at, Format: tar.FormatUSTAR, Uname: "root", Gname: "root"}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}
