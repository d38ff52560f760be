// Package typings is the command `drover worker typings`: the daemon's command line calls it
// once.
package typings

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/drover-run/drover/handlers/python"
)

// Command is `drover worker typings`.
type Command struct {
	Dir string `arg:"" optional:"" default:"typings" help:"The directory that drover/ is written into (default: typings)."`
}

// Help describes the command.
func (*Command) Help() string {
	return `Workers bring the Python package drover with them, where nothing else finds it. This writes what apps import of it, and replaces what an older drover wrote. Pyright and Pylance find it in typings/; for others the directory goes on their path.

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
