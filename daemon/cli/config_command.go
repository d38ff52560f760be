package cli

import (
	"fmt"
	"runtime"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/internal/buildinfo"
)

type configCommand struct {
	Schema  schemaCommand  `cmd:"" help:"Print the JSON Schema of a configuration."`
	OpenAPI openAPICommand `cmd:"" name:"openapi" help:"Print the OpenAPI document of the admin server."`
}

type schemaCommand struct{}

func (schemaCommand) Help() string {
	return `Editors with a YAML language server use it to complete and check configurations.

Example:

    drover config schema > drover.schema.json
`
}

func (schemaCommand) Run(std *IO) error {
	schema, err := configs.Schema()
	if err != nil {
		return err
	}
	_, err = std.Out.Write(append(schema, '\n'))
	return err
}

// openAPICommand is `drover config openapi`.
type openAPICommand struct{}

func (openAPICommand) Help() string {
	return `Generators make clients in many languages from it. A running daemon also serves it.

Examples:

    drover config openapi > drover.openapi.json
    curl --unix-socket .drover/admin.sock http://drover/v1/openapi.json
`
}

func (openAPICommand) Run(std *IO) error {
	text, err := daemon.OpenAPI()
	if err != nil {
		return err
	}
	_, err = std.Out.Write(append(text, '\n'))
	return err
}

type versionCommand struct{}

func (versionCommand) Help() string {
	return `Example:

    drover version
`
}

func (versionCommand) Run(std *IO) error {
	_, err := fmt.Fprintf(std.Out, "drover %s (%s, %s/%s)\n", buildinfo.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
