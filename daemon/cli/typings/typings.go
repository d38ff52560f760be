// Package typings implements the commands `drover worker typings` and `drover worker wheel`, which write
// the Python package of apps, or the types of the Node.js module. The daemon's command line calls them.
package typings

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/drover-run/drover/handlers/node"
	"github.com/drover-run/drover/handlers/python"
)

// Command is `drover worker typings`.
type Command struct {
	Dir      string `arg:"" optional:"" default:"typings" help:"Write drover/ into this directory (default: typings)."`
	Language string `default:"python" enum:"python,node" help:"Write the Python package, or the types of the Node.js module: python or node (default: python)."`
}

// Help describes the command.
func (*Command) Help() string {
	return `drover installs its Python package for workers only, so editors and type checkers do not find it. This command writes the part of the package that apps import, and replaces an earlier copy. Pyright and Pylance find it in typings/. For other tools, add the directory to their path.

For Node.js it writes the types of the module, for TypeScript and editors. Name them in tsconfig.json or jsconfig.json: "paths": {"drover": ["./typings/drover"]}.

Examples:

    drover worker typings
    MYPYPATH=typings mypy app
    PYTHONPATH=typings python3 -m unittest discover app
    drover worker typings --language node
`
}

// Run runs the command.
func (c *Command) Run(out io.Writer) error {
	writeTypings := python.WriteTypings
	if c.Language == "node" {
		writeTypings = node.WriteTypings
	}
	if err := writeTypings(c.Dir); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "Written: "+filepath.Join(c.Dir, "drover"))
	return err
}
