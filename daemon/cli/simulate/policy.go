package simulate

import (
	"fmt"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/scaling"
	"github.com/drover-run/drover/configs/values"
	"github.com/drover-run/drover/scaler/sim"
)

// policyFile is the file of --policy: a policy, as in a configuration, and the system that it
// scales.
type policyFile struct {
	Version int           `yaml:"version" default:"1" enum:"1" desc:"the version of this file's format"`
	Scale   scaling.Scale `yaml:"scale" desc:"as in a configuration"`
	Model   model         `yaml:"model" desc:"the simulated system"`
}

// model is the system that a simulation scales.
type model struct {
	ServiceTime values.Duration `yaml:"service_time" default:"500ms" min:"1ms" max:"1h" desc:"mean time to handle a message"`
	Spread      float64         `yaml:"spread" default:"1" min:"0" max:"10" desc:"standard deviation of the service time, as a fraction of it"`
	Slots       int             `yaml:"slots" default:"4" min:"1" max:"1000000" desc:"messages that an instance handles at once"`
	StartUp     values.Duration `yaml:"start_up" default:"5s" min:"0s" max:"1h" desc:"time from the start of an instance until it receives messages"`
	Grace       values.Duration `yaml:"grace" default:"30s" min:"0s" max:"24h" desc:"how long a stopping instance may finish messages in flight"`
	Downstream  float64         `yaml:"downstream" default:"0" min:"0" desc:"maximum rate of all instances together, in messages per second, set by a database or an API; 0 is no limit"`
}

// loadPolicy reads a file of --policy. The error is a problems.Errors with all problems in it, or
// the reason why the file cannot be read.
func loadPolicy(path string, env values.Env) (*policyFile, error) {
	p := defaultPolicy()
	if err := scaling.LoadPolicy(path, env, p, &p.Scale); err != nil {
		return nil, err
	}
	return p, nil
}

// defaultPolicy returns the defaults, with up to 10,000 instances.
func defaultPolicy() *policyFile {
	p := new(policyFile)
	decode.Defaults(p)
	p.Scale.Instances.Max = 10_000
	return p
}

// simModel returns the model for package sim.
func (p *policyFile) simModel() (sim.Model, error) {
	m := sim.Model{
		Service: p.Model.ServiceTime.D(), Spread: p.Model.Spread, Slots: p.Model.Slots,
		StartUp: p.Model.StartUp.D(), Grace: p.Model.Grace.D(), Downstream: p.Model.Downstream,
		MaxAge: max(p.Scale.MaxAge, p.Scale.ClearWithin).D(),
		Min:    p.Scale.Instances.Min, Max: p.Scale.Instances.Max,
	}
	if m.MaxAge == 0 {
		m.MaxAge = scaling.DefaultClearWithin.D()
	}
	if err := m.Check(); err != nil {
		return m, fmt.Errorf("model: %w", err)
	}
	return m, nil
}
