package configs

import (
	"github.com/drover-run/drover/configs/confine"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/scaling"
	"github.com/drover-run/drover/configs/traces"
	"github.com/drover-run/drover/configs/values"
)

// Duration and the types below are values, and settings, that have a package of their own.
type (
	Duration = values.Duration
	Size     = values.Size
	Secret   = values.Secret
	Strings  = values.Strings
	Ports    = values.Ports
	Prefetch = values.Prefetch
	TLS      = values.TLS
	Env      = values.Env

	Environment = confine.Environment
	Limits      = confine.Limits
	Sandbox     = confine.Sandbox
	Scale       = scaling.Scale
	Instances   = scaling.Instances
	Workers     = scaling.Workers
	Schedule    = scaling.Schedule
	Traces      = traces.Settings

	Position = problems.Position
	Problem  = problems.Problem
	Errors   = problems.Errors
)

// PrefetchAuto follows the measured rate.
const PrefetchAuto = values.PrefetchAuto

// Nearest returns the known word that is closest to a misspelt one, or "".
func Nearest(word string, known []string) string { return problems.Nearest(word, known) }
