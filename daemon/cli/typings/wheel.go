package typings

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/drover-run/drover/daemon/internal/buildinfo"
	"github.com/drover-run/drover/handlers/python"
	"github.com/drover-run/drover/internal/wheel"
)

//go:embed wheel.md
var description string

// Wheel is `drover worker wheel`.
type Wheel struct {
	Dir string `arg:"" optional:"" default:"." help:"Write the wheel into this directory (default: the current one)."`
}

// Help describes the command.
func (*Wheel) Help() string {
	return `Workers include the Python package drover. For tests, editors and mypy, install this wheel, in the same version as drover. It is pure Python and needs Python 3.9 or newer. Its name is drover-functions, because drover on PyPI is an unrelated package. A worker imports its own package even if the wheel is installed.

Examples:

    drover worker wheel
    python3 -m pip install drover_functions-*.whl
`
}

// Run runs the command.
func (c *Wheel) Run(out io.Writer) error {
	files, err := python.PublicFiles()
	if err != nil {
		return err
	}
	w := wheel.Wheel{
		Name: "drover-functions", Version: wheel.Version(buildinfo.Version()), Tag: "py3-none-any",
		Summary: "The Python package of drover functions, for tests, editors and type checkers", Description: description, RequiresPython: ">=3.9",
	}
	for _, f := range files {
		w.Files = append(w.Files, wheel.File{Path: f.Path, Content: f.Content})
	}
	var content bytes.Buffer
	if err := w.Write(&content); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil { //nolint:gosec // others may read a package
		return fmt.Errorf("making the directory of the wheel: %w", err)
	}
	path := filepath.Join(c.Dir, w.FileName())
	if err := os.WriteFile(path, content.Bytes(), 0o644); err != nil { //nolint:gosec // likewise
		return fmt.Errorf("writing the wheel: %w", err)
	}
	_, err = fmt.Fprintln(out, "Written: "+path)
	return err
}
