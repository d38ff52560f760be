package cli

import (
	"cmp"
	"fmt"
	"io"
	"runtime"

	"github.com/alecthomas/kong"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/completion"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/buildinfo"
)

// The commands of this file print properties of the program: its schemas, its version, and its
// command line for the completion of shells.

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

// completionCommand is `drover completion`.
type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"Print the script for this shell: bash, zsh or fish."`
}

func (*completionCommand) Help() string {
	return `Completes commands, flags, values, files, and the functions of ./drover.yaml. The program must be in $PATH.

Examples:

    source <(drover completion bash)      # in ~/.bashrc
    source <(drover completion zsh)       # in ~/.zshrc, after compinit
    drover completion fish > ~/.config/fish/completions/drover.fish
`
}

func (c *completionCommand) Run(std *IO) error {
	script, err := completion.ReadScript(c.Shell, std.Program)
	if err != nil {
		return err
	}
	_, err = io.WriteString(std.Out, script)
	return err
}

// completeCommand is `drover complete`, which the scripts call. It prints one candidate a line.
type completeCommand struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"Complete the last of these words, which follow the program's name."`
}

func (c *completeCommand) Run(parsed *kong.Context, std *IO) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	file, _ := std.Env("DROVER_CONFIG")
	for _, found := range completion.FindCandidates(parsed.Model.Node, words, cmp.Or(file, "drover.yaml")) {
		fmt.Fprintln(std.Out, term.Printable(found))
	}
	return nil
}
