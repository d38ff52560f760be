package daemon

import (
	"encoding/json"
	"log/slog"
	"slices"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/buildinfo"
	"github.com/drover-run/drover/daemon/internal/profiles"
	"github.com/drover-run/drover/daemon/internal/status"
)

// serveAdmin starts the servers that the configuration requires. The returned function first ends
// the requests that follow a log, then stops the servers.
func (d *Daemon) serveAdmin() (stop func(), err error) {
	stopServers, err := admin.Serve(adminConfig(d.cfg, d.log), adminRoutes(d))
	if err != nil {
		return nil, err
	}
	return func() {
		d.logs.CloseSubscribers()
		stopServers()
	}, nil
}

func adminConfig(cfg *configs.Config, log *slog.Logger) admin.Config {
	return admin.Config{Admin: cfg.Admin, Probes: cfg.Probes, DataDir: cfg.DataDir, Version: buildinfo.Version(), Log: log}
}

// adminRoutes returns the routes of the admin API, from all packages that report something.
func adminRoutes(d *Daemon) []admin.Route {
	return slices.Concat(status.AllRoutes(d.statusView()), pauseRoutes(d), messageRoutes(d), reloadRoutes(d), profiles.Routes(profileView(d)))
}

// OpenAPI returns the OpenAPI document of the admin API, as JSON.
func OpenAPI() ([]byte, error) {
	cfg := configs.New()
	cfg.Admin.Pprof = true
	document, err := admin.NewOpenAPI(adminConfig(cfg, nil), adminRoutes(New(cfg)))
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(document, "", "  ")
}
