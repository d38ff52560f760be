package daemon

import (
	"encoding/json"
	"fmt"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
)

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
	cfg := configs.New()
	cfg.Admin.Pprof = true
	document, err := admin.Document(adminConfig(cfg, nil), adminRoutes(New(cfg)))
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	_, err = std.Out.Write(append(text, '\n'))
	return err
}
