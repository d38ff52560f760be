package daemon

import "github.com/drover-run/drover/daemon/internal/daemontest"

// This file has helpers for the tests of the daemon and of the command line.
const (
	patience     = daemontest.Patience
	pythonConfig = daemontest.PythonConfig
)

var (
	newPrinted = daemontest.NewOutput
	write      = daemontest.WriteFiles
	binary     = daemontest.Binary
	ask        = daemontest.SendGet
	freePort   = daemontest.FreePort
	until      = daemontest.WaitUntil
	scrape     = daemontest.Scrape
	sum        = daemontest.Sum
	balanced   = daemontest.CheckBalance
)
