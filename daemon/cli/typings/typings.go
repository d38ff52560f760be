// Package typings implements the command `drover worker typings`: the daemon's command line calls
// it once.
package typings

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/drover-run/drover/handlers/python"
)

// Command is `drover worker typings`.
type Command struct {
	Dir string `arg:"" optional:"" default:"typings" help:"Write drover/ into this directory (default: typings)."`
}

// Help describes the command.
func (*Command) Help() string {
	return `drover installs its Python package for workers only, so editors and type checkers do not find it. This command writes the part of the package that apps import, and replaces an earlier copy. Pyright and Pylance find it in typings/. For other tools, add the directory to their path.

Examples:

    drover worker typings
    MYPYPATH=typings mypy app
    PYTHONPATH=typings python3 -m unittest discover app
`
}

// Run runs the command.
func (c *Command) Run(out io.Writer) error {
	if err := python.WriteTypings(c.Dir); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "Written: "+filepath.Join(c.Dir, "drover"))
	return err
}
