package sim

import "time"

// Azure is the target-based scaling of Azure Functions. Sources of the numbers:
// Microsoft's page on target-based scaling (instances are the length of the event
// source divided by the target executions per instance, rounded up; up to four
// more at a time) and the scalers of azure-webjobs-sdk and its extensions (the
// target of Service Bus is maxConcurrentCalls, here the model's slots; the length
// has the messages that are locked, too). The controller is closed: how often it
// looks is not documented, and 10 s is taken from the samples that its older
// form keeps; nor is how it scales in, which is taken to be at once.
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

func (a *azure) Every() time.Duration { return azureEvery }

func (a *azure) Decide(v View) int {
	wanted := (v.Backlog + v.InFlight + a.target - 1) / a.target
	a.instances = int(min(wanted, int64(a.instances+azureStep)))
	return a.instances
}
