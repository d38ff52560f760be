package configs

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs/confine"
	"github.com/drover-run/drover/configs/posting"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/scaling"
	"github.com/drover-run/drover/configs/servers"
	"github.com/drover-run/drover/configs/traces"
	"github.com/drover-run/drover/configs/values"
)

type (
	// Duration is a time.Duration written as 1m30s.
	Duration = values.Duration
	// Size is a number of bytes written as 512KiB or 1MiB (or kB, MB: powers of 1000).
	Size = values.Size
	// Secret is a text that is never printed: its String and its JSON are ***.
	Secret = values.Secret
	// Strings is a list, or a single text.
	Strings = values.Strings
	// EnvFiles is a list of files of environment variables, or a single one.
	EnvFiles = values.EnvFiles
	// Ports is a list of TCP ports, or any.
	Ports = values.Ports
	// Prefetch is a number of messages, or auto, which is -1.
	Prefetch = values.Prefetch
	// Spare is a number of spare workers, or auto, which is -1.
	Spare = values.Spare
	// TLS has the settings of encryption.
	TLS = values.TLS
	// Env looks up an environment variable, as os.LookupEnv does.
	Env = values.Env
	// Environment selects the environment variables of an app's workers, or of a command.
	Environment = confine.Environment
	// Limits are the limits of one worker, or of each of its processes.
	Limits = confine.Limits
	// Sandbox has the resources that an app's workers can reach.
	Sandbox = confine.Sandbox
	// Scale has the policy for the numbers of workers and instances.
	Scale = scaling.Scale
	// Instances bounds the number of instances.
	Instances = scaling.Instances
	// Workers bounds the number of worker processes of an app.
	Workers = scaling.Workers
	// Schedule is a time of the week with its own minimum of instances.
	Schedule = scaling.Schedule
	// Traces has the destination of spans, and the fraction of traced messages.
	Traces = traces.Settings
	// Admin is the server for commands and operators.
	Admin = servers.Admin
	// AdminTLS is the server side of TLS.
	AdminTLS = servers.AdminTLS
	// Probes is a server for clients without a token, such as a kubelet.
	Probes = servers.Probes
	// HTTPServer is the server of the functions with an http trigger.
	HTTPServer = servers.HTTP
	// HTTPHandler is an app that receives messages by POST.
	HTTPHandler = posting.Handler
	// HTTPBatch has the settings of requests with several messages.
	HTTPBatch = posting.Batch
	// Recycle has the conditions for the replacement of a worker.
	Recycle = confine.Recycle
	// Position is a place in a file, counted from 1; the zero Position is nowhere.
	Position = problems.Position
	// Problem is one error, and its place.
	Problem = problems.Problem
	// Errors lists all errors of a configuration, in the file's order.
	Errors = problems.Errors
)

// Nearest returns the known word that is closest to a misspelt one, or "".
func Nearest(word string, known []string) string { return problems.Nearest(word, known) }

// sortedNames returns the keys of a map in order.
func sortedNames[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

// kind is one of several keys, of which exactly one must be set.
type kind struct {
	key   string
	given bool
}

// pointedKinds returns the kinds of a struct with a pointer for each.
func pointedKinds(of any) (kinds []kind) {
	v := reflect.ValueOf(of)
	for i := range v.NumField() {
		if p := v.Field(i); p.Kind() == reflect.Pointer {
			kinds = append(kinds, kind{v.Type().Field(i).Tag.Get("yaml"), !p.IsNil()})
		}
	}
	return kinds
}

// oneKind reports a problem unless exactly one of the keys is set.
func oneKind(x *problems.Source, path, what string, kinds []kind) bool {
	var known, given []string
	for _, k := range kinds {
		known = append(known, k.key)
		if k.given {
			given = append(given, k.key)
		}
	}
	switch len(given) {
	case 0:
		x.Wrong(path, "it needs exactly one kind: %s", strings.Join(known, ", "))
	case 1:
		return true
	default:
		x.Wrong(path, "it has both %s; %s exactly one kind", strings.Join(given, " and "), what)
	}
	return false
}

// onlyFor reports keys that are for another kind.
func onlyFor(x *problems.Source, path, kind string, keys []string) {
	for _, key := range keys {
		if at, given := x.Where[path+"."+key]; given {
			x.Report(at, "%s.%s: this key is only for %s; remove it", path, key, kind)
		}
	}
}
