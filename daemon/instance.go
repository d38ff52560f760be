package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/ownprocess"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/scaler/local"
	"github.com/drover-run/drover/triggers"
)

// This file is one of several instances, as its parent starts it.

// greeting is what an instance is told. It has the configuration's text, so that
// all run the same, whatever becomes of the file.
type greeting struct {
	ID     int    `json:"id"`
	Config string `json:"config"`
	Name   string `json:"name"` // of the file
	Dir    string `json:"dir"`
	// DataDir is the instance's own, Parent that of the daemon that started it.
	DataDir string `json:"data_dir"`
	Parent  string `json:"parent"`
}

var errNoFile = errors.New("several instances need a configuration that was read from a file: use configs.Load")

// Greeting is what the instance with an ID, counted from 1, is told at its start,
// for those who bring a provisioner of their own: they run `drover instance`, or
// their own program with that argument, as scaler/local does. The error says
// that the configuration was not read from a file.
func Greeting(cfg *configs.Config, id int) (json.RawMessage, error) {
	name, dir, text, ok := cfg.Source()
	if !ok {
		return nil, errNoFile
	}
	own := instanceDir(cfg.DataDir, id)
	if err := os.MkdirAll(own, dataDirMode); err != nil {
		return nil, fmt.Errorf("making an instance's directory: %w", err)
	}
	return json.Marshal(greeting{ID: id, Config: string(text), Name: name, Dir: dir, DataDir: own, Parent: cfg.DataDir})
}

// instanceDir is where an instance keeps what is its own.
func instanceDir(dataDir string, id int) string {
	return filepath.Join(dataDir, "instances", strconv.Itoa(id))
}

// instanceReport is what an instance says of itself.
type instanceReport struct {
	Functions map[string]functionReport `json:"functions"`
	Apps      map[string]apps.Status    `json:"apps"`
}

// functionReport is what an instance says of one function.
type functionReport struct {
	api.FunctionStatus
	// Taken is occupancy.microseconds.
	Taken int64 `json:"taken"`
	// Slots are those that the function would have with all the workers that this
	// instance may start; Used are taken, by it or by others.
	Slots int64 `json:"slots"`
	Used  int64 `json:"used"`
	// Holding are the messages that the instance keeps for their retry.
	Holding int64 `json:"holding"`
}

// config is the configuration of the instance that is greeted.
func (g greeting) config(env configs.Env) (*configs.Config, error) {
	cfg, err := configs.Parse(g.Name, []byte(g.Config), g.Dir, env)
	if err != nil {
		return nil, err
	}
	cfg.DataDir = g.DataDir
	if cfg.InFlightMemory == 0 { // all instances share the machine's memory
		cfg.InFlightMemory = configs.Size(max(bodyBudget(cfg)/int64(max(cfg.Scale.Instances.Max, 1)), leastBodies))
	}
	cfg.Scale.Instances = configs.Instances{Min: 1, Max: 1}
	cfg.Admin, cfg.Probes = configs.Admin{Listen: "unix"}, configs.Probes{} // the ports are the parent's
	return cfg, nil
}

// regreeted reads the greeting that an instance is sent to go on with.
func (d *Daemon) regreeted(text []byte) (*configs.Config, error) {
	var hello greeting
	if err := json.Unmarshal(text, &hello); err != nil {
		return nil, fmt.Errorf("this is one of several instances; reload the parent: %w", err)
	}
	return hello.config(d.env)
}

// reportEvery is the time between two reports; a step of the load is seen so much
// later at most.
const reportEvery = 500 * time.Millisecond

// instanceCommand is `drover instance`, which is not for people.
type instanceCommand struct{}

func (instanceCommand) Run(ctx context.Context, std *IO) (err error) {
	link, err := local.Attach(std.Env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, link.Close()) }()
	var hello greeting
	if err := json.Unmarshal(link.Hello, &hello); err != nil {
		return fmt.Errorf("reading the greeting: %w", err)
	}
	cfg, err := hello.config(std.Env)
	if err != nil {
		return err
	}
	log, level := std.levelledLogger(cfg.Log)
	log = log.With("instance", hello.ID)
	defer ownprocess.SurviveClosedLog()()
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended, hurry := make(chan struct{}), make(chan struct{})
	var background sync.WaitGroup
	defer background.Wait()
	defer close(ended)
	background.Go(func() {
		select {
		case <-link.Drain():
			stop()
		case <-ended:
			return
		}
		select {
		case <-ctx.Done(): // a signal to one that drains
			close(hurry)
		case <-ended:
		}
	})
	ready := make(chan struct{})
	d := New(cfg, append(std.options(), WithLogger(log), withLevel(level), withMain(), WithHurry(hurry), withParent(hello.Parent), WithReady(func() { close(ready) }))...)
	background.Go(func() {
		select {
		case <-ready:
			d.report(link, ended)
		case <-ended:
		}
	})
	err = d.Run(running)
	select {
	case <-ready:
		err = errors.Join(err, link.Report(d.InFlight(), d.tell(time.Now()))) // the last word
	default:
	}
	return err
}

// report reports until the instance has ended.
func (d *Daemon) report(link *local.Link, ended <-chan struct{}) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		if err := link.Report(d.InFlight(), d.tell(time.Now())); err != nil {
			return // the parent is gone; Drain says so, too
		}
		select {
		case <-tick.C:
		case <-ended:
			return
		}
	}
}

// tell is what there is to say of each function and app.
func (d *Daemon) tell(now time.Time) instanceReport {
	out := instanceReport{Functions: make(map[string]functionReport), Apps: d.appRegistry.Statuses(usageReported)}
	settings := d.config().Apps
	for _, f := range d.running() {
		used, slots := f.Share.Room()
		r := functionReport{FunctionStatus: functionStatus(f), Taken: f.Stats.SlotTime(now), Slots: int64(slots), Used: int64(min(used, slots))}
		if holder, ok := f.Trigger.(triggers.Holder); ok {
			r.Holding = holder.Holding()
		}
		if app := settings[f.App]; app.Scaled && r.Workers > 0 {
			r.Slots = max(r.Slots*int64(app.Processes)/int64(r.Workers), r.Slots)
		}
		out.Functions[f.Name] = r
	}
	return out
}
