// Package about has the commands that print properties of the program: its schemas and its version. The
// command line calls them.
package about

import (
	"fmt"
	"io"
	"runtime"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/internal/buildinfo"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// Schema is `drover config schema`.
type Schema struct {
	FunctionApp bool `help:"Print the schema of a drover.yaml beside a host.json, which has only the settings that Azure does not have."`
}

// Help implements kong.HelpProvider.
func (*Schema) Help() string {
	return `Editors with a YAML language server use the schema to complete and check a configuration whose first line is:

    # yaml-language-server: $schema=./drover.schema.json

Examples:

    drover config schema > drover.schema.json
    drover config schema --function-app > drover.schema.json
`
}

// Run prints it.
func (c *Schema) Run(out io.Writer) error {
	schema, err := configs.Schema()
	if c.FunctionApp {
		schema, err = configs.OverlaySchema()
	}
	if err != nil {
		return err
	}
	_, err = out.Write(append(schema, '\n'))
	return err
}

// OpenAPI is `drover config openapi`.
type OpenAPI struct{}

// Help implements kong.HelpProvider.
func (OpenAPI) Help() string {
	return `Use it to generate clients in many languages. A running daemon also serves it.

Examples:

    drover config openapi > drover.openapi.json
    curl --unix-socket .drover/admin.sock http://drover/v1/openapi.json
`
}

// Run prints it.
func (OpenAPI) Run(out io.Writer) error {
	text, err := daemon.OpenAPI()
	if err != nil {
		return err
	}
	_, err = out.Write(append(text, '\n'))
	return err
}

// Version is `drover version`.
type Version struct{}

// Help implements kong.HelpProvider.
func (Version) Help() string {
	return `Also prints the version of Go, the commit, and the version of the worker protocol.

Example:

    drover version
`
}

// Run prints it.
func (Version) Run(out io.Writer) error {
	_, err := fmt.Fprintf(out, "drover %s (%s, %s/%s)\ncommit %s\nworker protocol %d\n",
		buildinfo.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, buildinfo.Commit(), protocol.Version)
	return err
}
