package cli

import "github.com/drover-run/drover/daemon"

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
