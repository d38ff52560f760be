// Package library builds the npm package drover-functions from the source of the Node.js worker: the
// module that functions use, its types, and the code that runs functions in unit tests. Package node
// calls it, for the command `drover worker npm-package`.
package library

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// Name is the name of the package.
const Name = "drover-functions"

// files are the files of the package: the names are the same in handlers/node and in the package.
var files = []string{
	"library/testing.d.ts", "library/testing.js",
	"worker/batches.js", "worker/callable.js", "worker/frames.js", "worker/message.js", "worker/outcome.js", "worker/results.js", "worker/streaming.js",
	"worker/modules/drover/index.d.ts", "worker/modules/drover/index.js",
}

// npmTime is the modification time that npm gives to all files in packages.
var npmTime = time.Date(1985, time.October, 26, 8, 15, 0, 0, time.UTC)

var semver = regexp.MustCompile(`^v(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)(?:\+[0-9A-Za-z.-]+)?$`)

// packageVersion returns the version of the package for a version of drover, such as v1.2.0. A build
// without a version is 0.0.0-dev.
func packageVersion(drover string) string {
	if found := semver.FindStringSubmatch(drover); found != nil {
		return found[1]
	}
	return "0.0.0-dev"
}

// manifest is a package.json.
type manifest struct {
	Name        string                       `json:"name"`
	Version     string                       `json:"version"`
	Description string                       `json:"description"`
	License     string                       `json:"license"`
	Homepage    string                       `json:"homepage"`
	Main        string                       `json:"main"`
	Types       string                       `json:"types"`
	Exports     map[string]map[string]string `json:"exports"`
	Peers       map[string]string            `json:"peerDependencies"`
	PeerOptions map[string]map[string]bool   `json:"peerDependenciesMeta"`
	Engines     map[string]string            `json:"engines"`
}

// Write writes the package into a directory, and returns its path. sources is the directory
// handlers/node, and version is drover's. The bytes depend only on these two.
func Write(sources fs.FS, version, dir string) (path string, err error) {
	version = packageVersion(version)
	about, err := json.MarshalIndent(manifest{
		Name: Name, Version: version, License: "UNLICENSED", Homepage: "https://github.com/drover-run/drover",
		Description: "The module for Node.js functions that run in drover: for unit tests, TypeScript and editors",
		Main:        "./worker/modules/drover/index.js", Types: "./worker/modules/drover/index.d.ts",
		Exports: map[string]map[string]string{
			".":         {"types": "./worker/modules/drover/index.d.ts", "default": "./worker/modules/drover/index.js"},
			"./testing": {"types": "./library/testing.d.ts", "default": "./library/testing.js"},
		},
		Peers: map[string]string{"@types/node": "*"}, PeerOptions: map[string]map[string]bool{"@types/node": {"optional": true}},
		Engines: map[string]string{"node": ">=20"},
	}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("writing package.json: %w", err)
	}
	var archive bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&archive, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	tarred := tar.NewWriter(zipped)
	add := func(name string, text []byte) error {
		return errors.Join(tarred.WriteHeader(&tar.Header{Name: "package/" + name, Mode: 0o644, Size: int64(len(text)), ModTime: npmTime, Format: tar.FormatUSTAR}), second(tarred.Write(text)))
	}
	if err := add("package.json", append(about, '\n')); err != nil {
		return "", fmt.Errorf("packing package.json: %w", err)
	}
	for _, name := range append([]string{"library/README.md"}, files...) {
		text, err := fs.ReadFile(sources, name)
		if err != nil {
			return "", fmt.Errorf("reading the sources: %w", err)
		}
		if name == "library/README.md" {
			name = "README.md"
		}
		if err := add(name, text); err != nil {
			return "", fmt.Errorf("packing %s: %w", name, err)
		}
	}
	if err := errors.Join(tarred.Close(), zipped.Close(), os.MkdirAll(dir, 0o755)); err != nil { //nolint:gosec // a directory of packages is for all
		return "", fmt.Errorf("packing: %w", err)
	}
	path = filepath.Join(dir, Name+"-"+version+".tgz")
	if err := os.WriteFile(path, archive.Bytes(), 0o644); err != nil { //nolint:gosec // see above
		return "", fmt.Errorf("writing the package: %w", err)
	}
	return path, nil
}

func second(_ int, err error) error { return err }
