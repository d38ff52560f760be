package configs

import (
	"context"
	"fmt"
	"os"
	"reflect"

	"github.com/drover-run/drover/scaler/sim"
)

// Simulation is the file of `drover scale simulate`: a policy, as in a
// configuration, and what it is played with.
type Simulation struct {
	Version int   `yaml:"version" default:"1" enum:"1" desc:"the version of this file's format"`
	Scale   Scale `yaml:"scale" desc:"as in a configuration"`
	Model   Model `yaml:"model" desc:"the simulated system"`
}

// Model is what is scaled in a simulation.
type Model struct {
	ServiceTime Duration `yaml:"service_time" default:"500ms" min:"1ms" max:"1h" desc:"mean time to handle a message"`
	Spread      float64  `yaml:"spread" default:"1" min:"0" max:"10" desc:"standard deviation of the service time, as a fraction of it"`
	Slots       int      `yaml:"slots" default:"4" min:"1" max:"1000000" desc:"messages that an instance handles at once"`
	StartUp     Duration `yaml:"start_up" default:"5s" min:"0s" max:"1h" desc:"time from the start of an instance until it receives messages"`
	Grace       Duration `yaml:"grace" default:"30s" min:"0s" max:"24h" desc:"how long a stopping instance may finish messages in flight"`
	Downstream  float64  `yaml:"downstream" default:"0" min:"0" desc:"maximum rate of all instances together, in messages per second, set by a database or an API; 0 is no limit"`
}

// LoadSimulation reads a file of `drover scale simulate`. The error is an Errors
// with all that is wrong with it, or says why the file can't be read.
func LoadSimulation(path string, env Env) (*Simulation, error) {
	text, dir, err := read(context.Background(), path, func(string, *os.File) error { return nil }) // it runs nothing
	if err != nil {
		return nil, err
	}
	s := NewSimulation()
	d := newDecoder(path, text, dir, env)
	if body := d.body(text); body != nil {
		d.decode(body, reflect.ValueOf(s).Elem(), "", field{})
	}
	if err := d.errors(); err != nil {
		return nil, err
	}
	x := &completion{new(Config), d.source, env}
	x.scale("scale", &s.Scale)
	if i := s.Scale.Instances; !i.Scaled() {
		x.wrong("scale", "nothing scales: set instances, such as {min: 1, max: 100}")
	}
	return s, x.errors()
}

// NewSimulation has the defaults, and up to 10,000 instances.
func NewSimulation() *Simulation {
	s := new(Simulation)
	setDefaults(reflect.ValueOf(s).Elem())
	s.Scale.Instances.Max = 10_000
	return s
}

// SimModel is the model as the simulation has it.
func (s *Simulation) SimModel() (sim.Model, error) {
	m := sim.Model{
		Service: s.Model.ServiceTime.D(), Spread: s.Model.Spread, Slots: s.Model.Slots,
		StartUp: s.Model.StartUp.D(), Grace: s.Model.Grace.D(), Downstream: s.Model.Downstream,
		MaxAge: max(s.Scale.MaxAge, s.Scale.ClearWithin).D(),
		Min:    s.Scale.Instances.Min, Max: s.Scale.Instances.Max,
	}
	if m.MaxAge == 0 {
		m.MaxAge = defaultClearWithin.D()
	}
	if err := m.Check(); err != nil {
		return m, fmt.Errorf("model: %w", err)
	}
	return m, nil
}
