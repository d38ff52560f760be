package apps

import (
	"math"
	"time"

	"github.com/drover-run/drover/scaler/autotune"
	"github.com/drover-run/drover/scaler/hostinfo"
)

// TuningState has a tuner's results for an app.
type TuningState struct {
	Settings   autotune.Settings `json:"settings"`
	Processes  bool              `json:"auto_processes"`
	Threads    bool              `json:"auto_threads"`
	Coroutines bool              `json:"auto_coroutines"`
	Phase      string            `json:"phase"`
	Note       string            `json:"note"`
	// Limits are the limits of functions, in flight in each process.
	Limits map[string]int           `json:"limits,omitempty"`
	Kinds  map[string]autotune.Kind `json:"kinds"`
	// Undone are changes of settings that were reverted because calls failed after them.
	Undone []autotune.Undone `json:"undone,omitempty"`
	// Delayed is how long the workers' threads were ready and waited for a core.
	Delayed time.Duration `json:"delayed"`
	Machine Machine       `json:"machine"`
	// Advice is what auto would choose if no number was configured; empty if it is the same.
	Advice string `json:"advice,omitempty"`
}

// Machine is the resources of the machine. A field is missing if its value is unknown.
type Machine struct {
	Cores           float64  `json:"cores"`
	MemoryLimit     uint64   `json:"memory_limit,omitempty"`     // in bytes, of all processes in the cgroup
	MemoryAvailable uint64   `json:"memory_available,omitempty"` // in bytes
	CPUPressure     *float64 `json:"cpu_pressure,omitempty"`     // 0 to 1
	MemoryPressure  *float64 `json:"memory_pressure,omitempty"`  // 0 to 1
}

// NewMachine converts what hostinfo read.
func NewMachine(m hostinfo.Machine) Machine {
	ratio := func(percent float64) *float64 {
		if math.IsNaN(percent) {
			return nil
		}
		percent /= 100
		return &percent
	}
	return Machine{m.Cores, m.MemoryLimit, m.MemoryAvailable, ratio(m.Pressure.CPU), ratio(m.Pressure.Memory)}
}
