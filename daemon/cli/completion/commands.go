package completion

import (
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"github.com/drover-run/drover/daemon/cli/term"
)

// Program describes the program to the commands. The command line binds it.
type Program struct {
	Path   string // of the program
	Config string // the configuration that commands read by default
}

// Command is `drover completion`.
type Command struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"Print the script for this shell: bash, zsh or fish."`
}

// Help implements kong.HelpProvider.
func (*Command) Help() string {
	return `Completes commands, flags, values, files, and the functions of ./drover.yaml. The program must be in $PATH.

Examples:

    source <(drover completion bash)      # in ~/.bashrc
    source <(drover completion zsh)       # in ~/.zshrc, after compinit
    drover completion fish > ~/.config/fish/completions/drover.fish
`
}

// Run prints the script.
func (c *Command) Run(out io.Writer, p *Program) error {
	script, err := ReadScript(c.Shell, p.Path)
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, script)
	return err
}

// Complete is `drover complete`, which the scripts call. It prints one candidate per line.
type Complete struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"Complete the last of these words, which follow the program's name."`
}

// Run prints the candidates.
func (c *Complete) Run(parsed *kong.Context, out io.Writer, p *Program) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	for _, found := range FindCandidates(parsed.Model.Node, words, p.Config) {
		fmt.Fprintln(out, term.Printable(found))
	}
	return nil
}
