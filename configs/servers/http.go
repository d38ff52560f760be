package servers

import (
	"maps"
	"slices"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/values"
)

// HTTP is the server of the functions with an http trigger.
type HTTP struct {
	Listen       string            `yaml:"listen" default:"127.0.0.1:7071" desc:"HOST:PORT for all functions with an http trigger; port 0 picks a free one"`
	Prefix       string            `yaml:"prefix" desc:"start of all routes, such as api; none by default"`
	Keys         HTTPKeys          `yaml:"keys" desc:"keys of functions whose auth is function or admin; without any, an address of this machine alone, such as 127.0.0.1, needs none, and any other answers 401"`
	Headers      map[string]string `yaml:"headers" desc:"headers added to each response of a function that does not set them itself, such as X-Content-Type-Options: nosniff"`
	MaxBody      values.Size       `yaml:"max_body" default:"100MiB" min:"1KiB" max:"128MiB" desc:"a larger body is answered with 413"`
	MaxRequests  int               `yaml:"max_requests" default:"2000" min:"1" max:"1000000" desc:"maximum number of requests at once, waiting and running, of all functions in this instance; more are answered with 429"`
	QueueTimeout values.Duration   `yaml:"queue_timeout" default:"1m" min:"10ms" max:"24h" desc:"how long a request waits for a free slot of its function before it is answered with 503"`
	BodyTimeout  values.Duration   `yaml:"body_timeout" default:"30s" min:"10ms" max:"1h" desc:"how long a client may take to send a body, in addition to its size at 16 KiB per second; then it is answered with 408"`
}

// HTTPKeys are the keys of requests.
type HTTPKeys struct {
	Master    values.Secret            `yaml:"master" desc:"key for all functions, also those whose auth is admin, and for POST /admin/functions/NAME; usually ${NAME} or file:PATH"`
	All       values.Secret            `yaml:"all" desc:"key for all functions whose auth is function; usually ${NAME} or file:PATH"`
	Functions map[string]values.Secret `yaml:"functions" desc:"keys of single functions, by function; usually ${NAME} or file:PATH"`
	Directory string                   `yaml:"directory" desc:"directory with key files in the format of the Azure Functions host: host.json and NAME.json, in plain text, or a file for each key; read again when they change"`
}

// Complete completes and checks all keys. path is the path of the settings.
func (h *HTTP) Complete(x *problems.Source, path string) {
	if !validListen(h.Listen) {
		x.Wrong(path+".listen", "%q is not HOST:PORT; write 127.0.0.1:7071 or :8080, for example", h.Listen)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Headers)) {
		if !values.ValidHeader(name, values.Secret(h.Headers[name])) {
			x.Wrong(path+".headers."+name, "not a valid header; use letters, digits and hyphens, and a value of one line")
		}
	}
	k := &h.Keys
	if k.Directory != "" {
		k.Directory = x.Absolute(k.Directory)
	}
	check := func(path string, key values.Secret) {
		if key != "" && len(key) < shortestToken {
			x.Wrong(path, "it has fewer than %d characters; use the output of `openssl rand -hex 32`", shortestToken)
		}
		keptFromOthers(x, path)
	}
	check(path+".keys.master", k.Master)
	check(path+".keys.all", k.All)
	for _, name := range slices.Sorted(maps.Keys(k.Functions)) {
		check(path+".keys.functions."+name, k.Functions[name])
	}
}

// IsLocal reports whether only programs on this machine can reach the server.
func (h *HTTP) IsLocal() bool { return isLoopback(h.Listen) }

// HasKeys reports whether any key is configured. A directory may have none.
func (h *HTTP) HasKeys() bool {
	return h.Keys.Master != "" || h.Keys.All != "" || len(h.Keys.Functions) > 0 || h.Keys.Directory != ""
}

// PicksPort reports whether the port is free to choose.
func (h *HTTP) PicksPort() bool { return portOf(h.Listen) == "0" }
