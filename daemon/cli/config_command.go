package cli

import (
	"context"

	"github.com/drover-run/drover/configs/effective"
	"github.com/drover-run/drover/daemon/cli/about"
)

type configCommand struct {
	Show    showCommand   `cmd:"" help:"Print the effective configuration, and where each value comes from."`
	Schema  about.Schema  `cmd:"" help:"Print the JSON Schema of a configuration."`
	OpenAPI about.OpenAPI `cmd:"" name:"openapi" help:"Print the OpenAPI document of the admin server."`
}

// showCommand is `drover config show`.
type showCommand struct {
	File string `arg:"" optional:"" help:"Read this configuration, as with --config, or this directory: an Azure Functions app, or one with a drover.yaml."`
	configFlag
	Set  bool `help:"Leave out the defaults."`
	JSON bool `name:"json" help:"Print one JSON object per value."`
}

func (*showCommand) Help() string {
	return `Prints YAML with the origin of each value in a comment: default, the line of the file, the line of the defaults block, the environment variable, or the place in a function app. Secrets are ***, as are values from variables whose names look secret. For an Azure Functions app it imports the code.

Examples:

    drover config show
    drover config show /etc/drover/orders.yaml --set
    drover config show --json | jq -r 'select(.from == "environment") | .path'
`
}

func (c *showCommand) Run(ctx context.Context, std *IO) error {
	cfg, err := std.loadConfig(ctx, c.fileOr(c.File))
	if err != nil {
		return err
	}
	values := effective.List(cfg)
	if c.Set {
		values = effective.WithoutDefaults(values)
	}
	if c.JSON {
		return effective.WriteJSON(std.Out, values)
	}
	return effective.WriteText(std.Out, values)
}
