// Package instances is the daemon as parent of several instances of itself: what it sends them,
// what they report, and how many run.
package instances

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/functionapp"
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// Greeting is sent to an instance at its start and in a reload. It has the text of
// the configuration, so that all instances run the same even if the file changes.
type Greeting struct {
	ID     int    `json:"id"`
	Config string `json:"config"`
	Name   string `json:"name"` // of the file
	Dir    string `json:"dir"`
	// FunctionApp is set instead of Config for a function app, which only the parent indexes.
	FunctionApp json.RawMessage `json:"function_app,omitempty"`
	// DataDir is the instance's own, Parent that of the daemon that started it.
	DataDir string `json:"data_dir"`
	Parent  string `json:"parent"`
	// Started is when that daemon started.
	Started time.Time `json:"started"`
}

// CanPassOn reports whether instances can be sent the configuration.
func CanPassOn(cfg *configs.Config) bool {
	return cfg.Places().Lines != nil || cfg.FunctionApp != nil
}

// ErrNoFile reports a configuration that was not read from a file.
var ErrNoFile = errors.New("several instances need a configuration that was read from a file: use configs.Load")

// NewGreeting returns the greeting of the instance with an ID, counted from 1, and makes its
// data directory. The error is ErrNoFile, or that the directory cannot be made.
func NewGreeting(cfg *configs.Config, id int) (json.RawMessage, error) {
	if !CanPassOn(cfg) {
		return nil, ErrNoFile
	}
	own := InstanceDir(cfg.DataDir, id)
	if err := os.MkdirAll(own, 0o700); err != nil {
		return nil, fmt.Errorf("making an instance's directory: %w", err)
	}
	g := Greeting{ID: id, FunctionApp: cfg.FunctionApp, DataDir: own, Parent: cfg.DataDir, Started: telemetry.ProcessStart}
	if file := cfg.Places(); cfg.FunctionApp == nil {
		g.Config, g.Name, g.Dir = string(file.Text()), file.Name, file.Dir
	}
	return json.Marshal(g)
}

// InstanceDir returns the data directory of an instance.
func InstanceDir(dataDir string, id int) string {
	return filepath.Join(dataDir, "instances", strconv.Itoa(id))
}

// ParseConfig returns the configuration of the instance. bodies returns how many bytes of message
// bodies a daemon of a configuration may hold by default.
func (g Greeting) ParseConfig(env configs.Env, bodies func(*configs.Config) int64) (*configs.Config, error) {
	cfg, err := g.readConfig(env)
	if err != nil {
		return nil, err
	}
	cfg.DataDir = g.DataDir
	if cfg.InFlightMemory == 0 { // all instances share the machine's memory
		cfg.InFlightMemory = configs.Size(bodies(cfg))
	}
	cfg.Scale.Instances = configs.Instances{Min: 1, Max: 1}
	cfg.Admin, cfg.Probes = configs.Admin{Listen: "unix"}, configs.Probes{} // the ports are the parent's
	return cfg, nil
}

func (g Greeting) readConfig(env configs.Env) (*configs.Config, error) {
	if g.FunctionApp != nil {
		return functionapp.Restore(g.FunctionApp, env)
	}
	return configs.Parse(g.Name, []byte(g.Config), g.Dir, env)
}
