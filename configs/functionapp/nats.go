package functionapp

import "github.com/drover-run/drover/configs"

// anyTrigger returns a trigger that needs no setting, for a configuration whose functions do not
// run.
func anyTrigger() configs.Trigger {
	nats := withDefaults[configs.NATSTrigger]()
	return configs.Trigger{NATS: &nats}
}
