package cli

import "github.com/drover-run/drover/daemon/cli/scaffold"

// initCommand is `drover init`.
type initCommand struct {
	Kind string `arg:"" optional:"" enum:"python,node,go,http,azure" default:"python" help:"Write a project of this kind: python; node; go, a program that contains drover; http, an app that drover calls; or azure, Python with Azure's queues (default: python)."`
	Dir  string `arg:"" optional:"" default:"." help:"Write into this directory, created if missing (default: the current one)."`
}

func (*initCommand) Help() string {
	return `The project has a commented configuration and function, a sample message, and a README. It runs as it is. If one of its files already exists, nothing is written.

Examples:

    drover init                      # python, here
    drover init go orders
    drover init azure ~/src/billing
`
}

func (c *initCommand) Run(std *IO) error { return scaffold.WriteProject(c.Kind, c.Dir, std.Out) }
