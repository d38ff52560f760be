package functionapp

import (
	"fmt"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
)

// This file translates Service Bus.

var busKinds = []kind{
	{name: "serviceBusTrigger", translate: serviceBusTrigger},
	{name: "serviceBus", out: true, output: serviceBusOutput},
}

// serviceBus is the service of namespaces.
var serviceBus = service{
	name: "Azure Service Bus", usual: "AzureWebJobsServiceBus", identity: []string{"fullyQualifiedNamespace"},
	refuse: func(c configs.Connection) string {
		if c.Storage() || !strings.Contains(strings.ToLower(string(c.ConnectionString)), "endpoint=sb://") {
			return "is not a connection string of Service Bus, such as Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=...;SharedAccessKey=..."
		}
		return ""
	},
	use: func(c *configs.Connection, _, value string) error {
		c.Namespace = value
		return nil
	},
	fits: configs.Connection.ServiceBus,
}

// usualDeliveries is the maximum delivery count of an entity, unless it was created with another.
const usualDeliveries = 10

func serviceBusTrigger(t *Translation, f *Function, b Binding, to *configs.Function) {
	host := t.app.host
	own := withDefaults[configs.ServiceBusTrigger]()
	own.Connection = t.connection(*f, b, &serviceBus)
	if b.text("topicName") != "" {
		own.Topic, own.Subscription = t.name(*f, b, "topicName"), configs.Strings{t.name(*f, b, "subscriptionName")}
		f.trigger = fmt.Sprintf("subscription %s of topic %s", own.Subscription[0], own.Topic)
	} else {
		own.Queue = t.name(*f, b, "queueName")
		f.trigger = "queue " + own.Queue
	}
	f.trigger += " of Service Bus on " + own.Connection
	if own.Sessions = b.holds("isSessionsEnabled"); own.Sessions {
		own.MaxSessions, _ = host.number("extensions.serviceBus.maxConcurrentSessions", 8)
		own.SessionIdle = configs.Duration(host.span("extensions.serviceBus.sessionIdleTimeout", time.Minute))
		f.trigger += ", with sessions"
	}
	many := strings.EqualFold(b.text("cardinality"), "many")
	if n, given := host.number("extensions.serviceBus.maxConcurrentCalls", 0); given && !host.dynamic() && !own.Sessions && !many {
		to.Concurrency = n
	}
	own.MaxLockRenewal = configs.Duration(max(0, host.span("extensions.serviceBus.maxAutoLockRenewalDuration", 0)))
	to.Trigger.ServiceBus, to.Retry = &own, fixed(usualDeliveries, 0)
	if many {
		to.Batch = host.busBatch()
		f.trigger += fmt.Sprintf(", up to %d messages a call", to.Batch.Size)
	}
}

// busBatch returns the batches of functions with cardinality many.
func (h host) busBatch() (b configs.Batch) {
	b.Size, _ = h.number("extensions.serviceBus.maxMessageBatchSize", 1000)
	if least, _ := h.number("extensions.serviceBus.minMessageBatchSize", 1); least > 1 {
		b.Min = min(least, b.Size)
		b.Window = configs.Duration(h.span("extensions.serviceBus.maxBatchWaitTime", 30*time.Second))
	}
	return b
}

// limitDeliveries lets the entity limit the attempts, as on Azure, unless the function has retries of
// its own.
func limitDeliveries(f *configs.Function, ownRetries bool) {
	if bus := f.Trigger.ServiceBus; bus != nil {
		bus.Unchecked, bus.CountDeliveries = true, !ownRetries
	}
}

// serviceBusOutput returns the output of a binding.
func serviceBusOutput(t *Translation, f *Function, b Binding) configs.Output {
	own := withDefaults[configs.ServiceBusOutput]()
	own.Connection = t.connection(*f, b, &serviceBus)
	if b.text("topicName") != "" {
		own.Topic = t.name(*f, b, "topicName")
	} else {
		own.Queue = t.name(*f, b, "queueName")
	}
	return configs.Output{ServiceBus: &own}
}
