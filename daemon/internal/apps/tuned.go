package apps

import (
	"fmt"
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
	// CoreShare is how many cores the libraries of each worker use.
	CoreShare int `json:"core_share"`
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

// CoresText describes how many cores a call uses, if it computes with threads of its own; else it is empty. share is
// the number of cores that each worker has for them.
func CoresText(k autotune.Kind, share int) string {
	if k.Cores == 0 {
		return ""
	}
	text := fmt.Sprintf("a call uses %.2g cores, because it computes with threads of its own; each worker has %d for them", k.Cores, share)
	if k.Cores > coresBeyond*float64(share) {
		text += ", but the library does not follow the variables of the environment: limit its threads in the code, such as with torch.set_num_threads or the session options of onnxruntime"
	}
	return text
}

// coresBeyond is the factor by which a call uses more than the share if its library does not follow it.
const coresBeyond = 1.3
