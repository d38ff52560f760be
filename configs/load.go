package configs

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/readfile"
	"github.com/drover-run/drover/configs/trust"
)

// New returns a configuration with defaults and no functions, for programs with a configuration in
// Go.
func New() *Config {
	c := new(Config)
	decode.Defaults(c)
	return c
}

// Load reads a file, and completes it. The error is an Errors with all problems of the file, or the
// reason why the file cannot be read.
func Load(path string, env Env) (*Config, error) {
	return LoadContext(context.Background(), path, env)
}

// LoadContext is Load with a context that bounds the wait for a pipe.
func LoadContext(ctx context.Context, path string, env Env) (*Config, error) {
	text, dir, err := readfile.Config(ctx, path, trust.CheckConfig)
	if err != nil {
		return nil, err
	}
	c, err := Parse(path, text, dir, env)
	if err != nil {
		return nil, err
	}
	c.File = path
	return c, nil
}

// Read returns a configuration's text and its directory. For root it rejects a file that another
// user can change. ctx ends the wait for a pipe.
func Read(ctx context.Context, path string) (text []byte, dir string, err error) {
	return readfile.Config(ctx, path, trust.CheckConfig)
}

// Parse reads a configuration's text, and completes it. name is the file's name in messages; paths
// in the text are relative to dir.
func Parse(name string, text []byte, dir string, env Env) (*Config, error) {
	c := New()
	c.source = problems.New(name, text, dir, env)
	decode.Document(c.source, c, nil)
	// With unknown or wrong keys other problems cannot be reported well.
	if err := c.source.Err(); err != nil {
		return nil, err
	}
	if err := c.Complete(env); err != nil {
		return nil, err
	}
	return c, nil
}

// CompleteOver reads a file over a configuration that a program made, and completes it. The file
// changes only the keys that it has; with a nil text there is no file. For a key that the file must
// not have, refuse returns the reason; for any other, the empty string. Keys for which skip returns
// true are not read; a nil skip reads all. Paths are relative to dir. The error is an Errors.
func (c *Config) CompleteOver(name string, text []byte, dir string, env Env, skip func(path string) bool, refuse func(path string) string) error {
	c.source = problems.New(name, text, dir, env)
	if text == nil {
		c.source.Lines = nil
	} else {
		decode.Over(c.source, c, skip, refuse)
	}
	if err := c.source.Err(); err != nil {
		return err
	}
	return c.Complete(env)
}

// SameButNumbers reports whether two configurations differ only in numbers of an app, by key, and
// the second has the given numbers. It changes both.
func SameButNumbers(before, after *Config, app string, numbers map[string]int) bool {
	for key, value := range numbers {
		v := reflect.ValueOf(after.Apps[app])
		i := fieldNamed(v.Type(), key)
		if i < 0 || v.Field(i).Int() != int64(value) {
			return false
		}
	}
	for _, c := range []*Config{before, after} {
		c.source, c.Warnings = nil, nil
		c.Apps[app] = App{Path: c.Apps[app].Path, ResolvedApp: ResolvedApp{Dir: c.Apps[app].Dir, Language: c.Apps[app].Language}}
		for name, f := range c.Functions {
			if code, found := f.Handler.Code(); !found || code.App != app {
				continue
			}
			decode.CopyKinds(&f.Handler)
			for _, h := range []any{f.Handler.Python, f.Handler.Node, f.Handler.Worker} {
				v := reflect.ValueOf(h)
				for key := range numbers {
					if !v.IsNil() {
						if i := fieldNamed(v.Elem().Type(), key); i >= 0 {
							v.Elem().Field(i).SetInt(0)
						}
					}
				}
			}
			c.Functions[name] = f
		}
	}
	return reflect.DeepEqual(before, after)
}

// fieldNamed returns the index of the field of a key; negative if there is none.
func fieldNamed(t reflect.Type, key string) int {
	for _, f := range decode.Fields(t) {
		if f.Name == key {
			return f.Index
		}
	}
	return -1
}

// clientKeys are the keys that a command needs to reach a running daemon. The server's private key
// is not among them.
var clientKeys = []string{"version", "data_dir", "env_file", "admin", "probes"}

// clientSkips reports whether LoadClient does not read the key at a path.
func clientSkips(path string) bool {
	top, _, _ := strings.Cut(path, ".")
	return !slices.Contains(clientKeys, top) || path == "admin.tls.key" || path == "admin.tls.client_ca"
}

// LoadClient reads only what a command needs to reach the daemon of a configuration: data_dir,
// admin and probes. So the command needs neither the files nor the environment variables with the
// daemon's secrets. The rest of the result is empty. The error is an Errors if the file is wrong.
func LoadClient(ctx context.Context, path string, env Env) (*Config, error) {
	text, dir, err := readfile.Config(ctx, path, trust.CheckConfig)
	if err != nil {
		return nil, err
	}
	c := New()
	c.File, c.source = path, problems.New(path, text, dir, env)
	c.source.Lenient = true
	decode.Document(c.source, c, clientSkips)
	if err := c.source.Err(); err != nil {
		return nil, err
	}
	c.DataDir = c.source.Absolute(c.DataDir)
	c.Admin.CompleteClient(c.source)
	c.Probes.CheckListen(c.source)
	c.Warnings = c.source.Warnings
	return c, c.source.Err()
}

// Schema returns the JSON Schema (2020-12) of a configuration, derived from the types.
func Schema() ([]byte, error) { return decode.Schema("drover configuration", new(Config), true) }

// OverlaySchema is Schema for a drover.yaml beside host.json, which has some of the keys.
func OverlaySchema() ([]byte, error) {
	return decode.Schema("drover settings of an Azure Functions app", new(Config), false)
}

// Places returns the text with the places of its values. It has no Lines if a program made the configuration.
func (c *Config) Places() *problems.Source {
	s := problems.Source{Where: make(map[string]Position)}
	if c.source != nil {
		s = *c.source
		s.Problems = nil
	}
	return &s
}
