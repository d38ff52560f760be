package functionapp

import (
	"fmt"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
)

// This file translates Service Bus.

var busKinds = []kind{
	{name: "serviceBusTrigger", translate: (*Translation).serviceBusTrigger},
	{name: "serviceBus", out: true, describe: func(t *Translation, f *Function, b Binding) string {
		if b.text("topicName") != "" {
			return fmt.Sprintf("topic %s of Service Bus on %s", t.name(*f, b, "topicName"), t.connection(*f, b, &serviceBus))
		}
		return fmt.Sprintf("queue %s of Service Bus on %s", t.name(*f, b, "queueName"), t.connection(*f, b, &serviceBus))
	}},
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

func (t *Translation) serviceBusTrigger(f *Function, b Binding, to *configs.Function) {
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
	} else if n, given := host.number("extensions.serviceBus.maxConcurrentCalls", 0); given && !host.dynamic() {
		to.Concurrency = n
	}
	own.MaxLockRenewal = configs.Duration(max(0, host.span("extensions.serviceBus.maxAutoLockRenewalDuration", 0)))
	to.Trigger.ServiceBus, to.Retry = &own, fixed(usualDeliveries, 0)
	if strings.EqualFold(b.text("cardinality"), "many") {
		f.trigger += ", many messages a call"
		f.leave(b, "drover has no batches: leave cardinality out, and take a single func.ServiceBusMessage")
	}
}
