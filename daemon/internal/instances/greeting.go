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
	"github.com/drover-run/drover/daemon/internal/telemetry"
)

// Greeting is what an instance is sent at its start and in a reload. It has the text of
// the configuration, so that all instances run the same even if the file changes.
type Greeting struct {
	ID     int    `json:"id"`
	Config string `json:"config"`
	Name   string `json:"name"` // of the file
	Dir    string `json:"dir"`
	// DataDir is the instance's own, Parent that of the daemon that started it.
	DataDir string `json:"data_dir"`
	Parent  string `json:"parent"`
	// Started is when that daemon started.
	Started time.Time `json:"started"`
}

// ErrNoFile reports a configuration that was not read from a file.
var ErrNoFile = errors.New("several instances need a configuration that was read from a file: use configs.Load")

// NewGreeting returns the greeting of the instance with an ID, counted from 1, and makes its
// data directory. The error is ErrNoFile, or that the directory cannot be made.
func NewGreeting(cfg *configs.Config, id int) (json.RawMessage, error) {
	name, dir, text, ok := cfg.Source()
	if !ok {
		return nil, ErrNoFile
	}
	own := InstanceDir(cfg.DataDir, id)
	if err := os.MkdirAll(own, 0o700); err != nil {
		return nil, fmt.Errorf("making an instance's directory: %w", err)
	}
	return json.Marshal(Greeting{ID: id, Config: string(text), Name: name, Dir: dir, DataDir: own, Parent: cfg.DataDir, Started: telemetry.ProcessStart})
}

// InstanceDir returns the data directory of an instance.
func InstanceDir(dataDir string, id int) string {
	return filepath.Join(dataDir, "instances", strconv.Itoa(id))
}

// ParseConfig returns the configuration of the instance. bodies returns how many bytes of message
// bodies a daemon of a configuration may hold by default.
func (g Greeting) ParseConfig(env configs.Env, bodies func(*configs.Config) int64) (*configs.Config, error) {
	cfg, err := configs.Parse(g.Name, []byte(g.Config), g.Dir, env)
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
