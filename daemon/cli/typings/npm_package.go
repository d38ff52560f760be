package typings

import (
	"fmt"
	"io"

	"github.com/drover-run/drover/daemon/internal/buildinfo"
	"github.com/drover-run/drover/handlers/node"
)

// NPMPackage is `drover worker npm-package`.
type NPMPackage struct {
	Dir string `arg:"" optional:"" default:"." help:"Write the package into this directory (default: the current one)."`
}

// Help describes the command.
func (*NPMPackage) Help() string {
	return `Workers include the Node.js module drover. For tests, TypeScript and editors, install this package, in the same version as drover. Its name is drover-functions; install it under the name drover. A worker uses its own module even if the package is installed.

Examples:

    drover worker npm-package
`
}

// Run runs the command.
func (c *NPMPackage) Run(out io.Writer) error {
	path, err := node.WritePackage(c.Dir, buildinfo.Version())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "Written: "+path)
	return err
}
