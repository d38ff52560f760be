// Package wheel writes Python wheels, the packages that pip installs (PyPA's "Binary distribution
// format"). The same content always produces the same bytes. A Wheel is for one goroutine at a time.
package wheel

import (
	"archive/zip"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Wheel is one distribution.
type Wheel struct {
	Name           string // as in `pip install NAME`
	Version        string // as returned by Version
	Tag            string // the compatible interpreters and systems, such as py3-none-any
	Summary        string // one line
	Description    string // Markdown
	RequiresPython string // such as >=3.9
	Files          []File // for site-packages
	Scripts        []File // commands, for the directory bin of the environment; executable
}

// File is a file of a wheel. Its path is relative, with slashes.
type File struct {
	Path    string
	Content []byte
}

var (
	validName    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	validVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?(\+[a-z0-9]+(\.[a-z0-9]+)*)?$`)
	validTag     = regexp.MustCompile(`^[a-z0-9_.]+-[a-z0-9_.]+-[a-z0-9_.]+$`)
	separators   = regexp.MustCompile(`[-_.]+`)
)

// epoch is the time of all files: the earliest time in a zip archive.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// FileName returns the name that installers require for the file.
func (w *Wheel) FileName() string { return w.prefix() + "-" + w.Tag + ".whl" }

func (w *Wheel) prefix() string {
	return strings.ToLower(separators.ReplaceAllString(w.Name, "_")) + "-" + w.Version
}

// Write writes the wheel. It writes nothing if a part of it is not valid.
func (w *Wheel) Write(to io.Writer) error {
	entries, err := w.entries()
	if err != nil {
		return err
	}
	archive := zip.NewWriter(to)
	archive.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(out, flate.BestCompression)
	})
	for _, e := range entries {
		header := &zip.FileHeader{Name: e.Path, Method: zip.Deflate, Modified: epoch}
		header.SetMode(0o644)
		if e.script {
			header.SetMode(0o755)
		}
		entry, err := archive.CreateHeader(header)
		if err == nil {
			_, err = entry.Write(e.Content)
		}
		if err != nil {
			return fmt.Errorf("writing %s of the wheel: %w", e.Path, err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("writing the wheel: %w", err)
	}
	return nil
}

// entry is a file of the archive.
type entry struct {
	File
	script bool
}

// entries returns all files of the archive, in order: the metadata is last, as the format recommends.
func (w *Wheel) entries() ([]entry, error) {
	switch {
	case !validName.MatchString(w.Name):
		return nil, fmt.Errorf("%q is not a valid name of a distribution", w.Name)
	case !validVersion.MatchString(w.Version):
		return nil, fmt.Errorf("%q is not a version of a Python distribution; see wheel.Version", w.Version)
	case !validTag.MatchString(w.Tag):
		return nil, fmt.Errorf("%q is not a tag of a wheel, such as py3-none-any", w.Tag)
	case strings.ContainsAny(w.Summary+w.RequiresPython, "\r\n"):
		return nil, errors.New("the summary and the required Python must each be one line")
	}
	var out []entry
	for _, f := range w.Files {
		out = append(out, entry{File: f})
	}
	for _, f := range w.Scripts {
		f.Path = w.prefix() + ".data/scripts/" + f.Path
		out = append(out, entry{File: f, script: true})
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.Path, b.Path) })
	info := w.prefix() + ".dist-info/"
	out = append(out,
		entry{File: File{info + "METADATA", []byte(w.metadata())}},
		entry{File: File{info + "WHEEL", []byte(w.format())}},
		entry{File: File{info + "RECORD", nil}},
	)
	var record strings.Builder
	for i, e := range out {
		if path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path || strings.HasPrefix(e.Path, "..") || strings.ContainsAny(e.Path, "\\,\"\r\n") {
			return nil, fmt.Errorf("a wheel cannot have a file with the path %q", e.Path)
		}
		if i > 0 && out[i-1].Path == e.Path {
			return nil, fmt.Errorf("the wheel has %s twice", e.Path)
		}
		if i == len(out)-1 {
			fmt.Fprintf(&record, "%s,,\n", e.Path) // RECORD itself
			continue
		}
		sum := sha256.Sum256(e.Content)
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", e.Path, base64.RawURLEncoding.EncodeToString(sum[:]), len(e.Content))
	}
	out[len(out)-1].Content = []byte(record.String())
	return out, nil
}

func (w *Wheel) metadata() string {
	var out strings.Builder
	fmt.Fprintf(&out, "Metadata-Version: 2.1\nName: %s\nVersion: %s\n", w.Name, w.Version)
	if w.Summary != "" {
		fmt.Fprintf(&out, "Summary: %s\n", w.Summary)
	}
	if w.RequiresPython != "" {
		fmt.Fprintf(&out, "Requires-Python: %s\n", w.RequiresPython)
	}
	if w.Description != "" {
		fmt.Fprintf(&out, "Description-Content-Type: text/markdown\n\n%s", w.Description)
	}
	return out.String()
}

func (w *Wheel) format() string {
	var out strings.Builder
	pure := w.Tag == "py3-none-any"
	fmt.Fprintf(&out, "Wheel-Version: 1.0\nGenerator: drover\nRoot-Is-Purelib: %t\n", pure)
	interpreters, rest, _ := strings.Cut(w.Tag, "-")
	interfaces, systems, _ := strings.Cut(rest, "-")
	for _, a := range strings.Split(interpreters, ".") {
		for _, b := range strings.Split(interfaces, ".") {
			for _, c := range strings.Split(systems, ".") {
				fmt.Fprintf(&out, "Tag: %s-%s-%s\n", a, b, c)
			}
		}
	}
	return out.String()
}
