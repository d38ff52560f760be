package main

import (
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
)

// This file has what the workloads ask of drover: explicit settings, and what auto has
// found.

// configure gives a configuration the functions, in one app, with explicit settings or
// with none.
func configure(c *configs.Config, dir string, functions map[string]configs.Function, s *settings) {
	app := configs.App{Path: dir, OnBlocked: "warn"}
	if s != nil {
		app.Processes, app.Threads = s.Processes, s.Threads
		for name, f := range functions {
			if strings.Contains(string(workloadsApp), "async def "+name+"(") {
				f.Concurrency = s.Processes * s.Coroutines
			}
			functions[name] = f
		}
	}
	c.Drain = configs.Duration(5 * time.Second) // thousands may be in flight, and are no part of what is measured
	c.Apps = map[string]configs.App{"workloads": app}
	c.Functions = functions
}

// seen is what a daemon says of itself.
type seen struct {
	Workers int `json:"workers"`
}

func see(d *daemon.Daemon, w workload) (s seen) {
	for _, f := range d.Status() {
		if f.Name == w.Functions[0] {
			s.Workers = f.Workers
		}
	}
	return s
}

// lanes are the numbers that a plot shows below the throughput.
func (r *report) lanes() []lane {
	return []lane{{"processes", func(p point) int { return p.Workers }}}
}
