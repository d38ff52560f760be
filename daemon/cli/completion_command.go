package cli

import (
	"cmp"
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"github.com/drover-run/drover/daemon/cli/completion"
	"github.com/drover-run/drover/daemon/cli/term"
)

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
