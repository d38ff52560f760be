package sim

import "time"

// Azure is the target-based scaling of Azure Functions. The numbers are from Microsoft's page
// on target-based scaling (instances are the length of the event source divided by the target
// executions per instance, rounded up; up to four more at a time) and from the scalers of
// azure-webjobs-sdk and its extensions (the target of Service Bus is maxConcurrentCalls, here
// the model's slots; the length includes locked messages). The controller is closed source. Its
// interval is not documented; 10 s is from the samples that its older form keeps. How it scales
// in is not documented either; the model scales in at once.
func Azure() Policy {
	return Policy{Name: "Azure target-based", New: func(m Model) Autoscaler {
		return &azure{instances: m.Min, target: int64(m.Slots)}
	}}
}

const (
	azureEvery = 10 * time.Second
	azureStep  = 4
)

type azure struct {
	instances int
	target    int64
}

func (a *azure) DecideEvery() time.Duration { return azureEvery }

func (a *azure) DecideUnits(v View) int {
	wanted := (v.Backlog + v.InFlight + a.target - 1) / a.target
	a.instances = int(min(wanted, int64(a.instances+azureStep)))
	return a.instances
}
