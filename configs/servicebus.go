package configs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ServiceBusTrigger is a queue, or subscriptions of a topic.
type ServiceBusTrigger struct {
	Connection   string  `yaml:"connection" desc:"one of connections, with a connection_string or a namespace; optional if there is only one of those"`
	Queue        string  `yaml:"queue" desc:"the queue; by default the function's name if there is no topic"`
	Topic        string  `yaml:"topic" desc:"the topic, instead of a queue"`
	Subscription Strings `yaml:"subscription" desc:"subscription of the topic, or a list of several; by default the function's name"`
	Create       bool    `yaml:"create" default:"false" desc:"create the queue, or the topic and its subscriptions, if missing; needs the Manage permission"`

	Sessions     bool     `yaml:"sessions" default:"false" desc:"handle the messages of a session one at a time, in order; for entities that require sessions"`
	MaxSessions  int      `yaml:"max_concurrent_sessions" default:"32" min:"1" max:"1000" desc:"maximum number of sessions held at once for each queue or subscription"`
	SessionIdle  Duration `yaml:"session_idle_timeout" default:"5s" min:"100ms" max:"1h" desc:"how long an empty session is held while there is room for others"`
	SessionTurn  Duration `yaml:"session_turn" default:"30s" min:"0s" max:"24h" desc:"how long a session with messages is held while there is no room for others; 0s is no limit"`
	SessionState bool     `yaml:"session_state" default:"false" desc:"pass the session's state to functions in worker processes; costs one more request per session"`

	MaxLockRenewal Duration `yaml:"max_lock_renewal" default:"0s" min:"0s" max:"24h" desc:"how long a message's lock is renewed after receipt; 0s is as long as the message is in flight"`
	CancelOnLost   bool     `yaml:"cancel_on_lock_lost" default:"false" desc:"cancel the function when its message's lock is lost, because the message will be redelivered"`
	MaxIdle        Duration `yaml:"max_idle" default:"10m" min:"0s" max:"24h" desc:"reopen the receiver after this time without a message; 0s is never"`

	// Unchecked allows as many attempts as the entity has deliveries, or more. CountDeliveries makes
	// each delivery an attempt, and the limit of the entity that of the function. Both are for
	// function apps.
	Unchecked       bool `yaml:"-"`
	CountDeliveries bool `yaml:"-"`
}

// ServiceBusOutput is a queue or a topic. A result keeps the session of its message.
type ServiceBusOutput struct {
	Connection string `yaml:"connection" desc:"one of connections; optional if there is only one to Service Bus"`
	Queue      string `yaml:"queue" desc:"the queue"`
	Topic      string `yaml:"topic" desc:"the topic, instead of a queue"`
}

// ServiceBus reports whether the connection is to an Azure Service Bus namespace.
func (c Connection) ServiceBus() bool {
	return c.Namespace != "" || c.ConnectionString != "" && !c.storageString()
}

func (c Connection) describeNamespace() string {
	if c.Namespace != "" {
		return fmt.Sprintf("Azure Service Bus at %s, identity %s", c.Namespace, c.Identity)
	}
	return "Azure Service Bus at " + c.namespaceHost()
}

// namespaceHost returns the host of a connection string, which is not secret.
func (c Connection) namespaceHost() string {
	return strings.Trim(strings.TrimPrefix(c.connectionParts()["endpoint"], "sb://"), "/")
}

func (t *ServiceBusTrigger) connectionName() string { return t.Connection }

func (t *ServiceBusTrigger) describeTrigger() string {
	text := "queue " + t.Queue
	if t.Topic != "" {
		text = fmt.Sprintf("subscription %s of topic %s", strings.Join(t.Subscription, " and "), t.Topic)
	}
	text += " of Service Bus on " + t.Connection
	if t.Sessions {
		text += fmt.Sprintf(", %d sessions at a time", t.MaxSessions)
	}
	if t.Create {
		text += ", created if missing"
	}
	if t.MaxLockRenewal > 0 {
		text += fmt.Sprintf(", locks renewed for %v at most", t.MaxLockRenewal)
	}
	return text + ", dead letters to its sub-queue"
}

func (o *ServiceBusOutput) connectionName() string { return o.Connection }

func (o *ServiceBusOutput) describeOutput() string {
	if o.Topic != "" {
		return fmt.Sprintf("topic %s of Service Bus on %s", o.Topic, o.Connection)
	}
	return fmt.Sprintf("queue %s of Service Bus on %s", o.Queue, o.Connection)
}

func (o *ServiceBusOutput) completeOutput(x *completion, path string) {
	path += ".servicebus"
	x.connectionOf(path, &o.Connection, "Azure Service Bus", Connection.ServiceBus)
	if (o.Queue == "") == (o.Topic == "") {
		x.Wrong(path, "set either queue or topic")
	}
	x.checkEntity(path+".queue", o.Queue)
	x.checkEntity(path+".topic", o.Topic)
}

func (t *ServiceBusTrigger) completeTrigger(x *completion, path, name string, _ Retry) {
	path += ".servicebus"
	if _, found := x.connectionOf(path, &t.Connection, "Azure Service Bus", Connection.ServiceBus); !found {
		return
	}
	switch {
	case t.Queue != "" && (t.Topic != "" || len(t.Subscription) > 0):
		x.Wrong(path, "it has a queue and a topic or subscription; set either queue, or topic and subscription")
		return
	case t.Topic == "" && len(t.Subscription) > 0:
		x.Wrong(path, "it has a subscription but no topic")
		return
	case t.Topic != "" && len(t.Subscription) == 0:
		t.Subscription = Strings{name}
	case t.Topic == "" && t.Queue == "":
		t.Queue = name
	}
	x.checkEntity(path+".queue", t.Queue)
	x.checkEntity(path+".topic", t.Topic)
	for i, s := range t.Subscription {
		switch {
		case !subscriptionName.MatchString(s):
			x.Wrong(path+".subscription", "%q cannot be the name of a subscription: letters, digits, . - and _, at most 50, with a letter or digit first and last", s)
		case slices.Contains(t.Subscription[:i], s):
			x.Wrong(path+".subscription", "%s is listed twice", s)
		}
	}
	if !t.Sessions {
		for _, key := range []string{"max_concurrent_sessions", "session_idle_timeout", "session_turn", "session_state"} {
			if x.Given(path + "." + key) {
				x.Wrong(path+"."+key, "this key requires sessions: true")
			}
		}
	}
	for _, other := range sortedNames(x.Functions) {
		o := x.Functions[other].Trigger.ServiceBus
		if other >= name || o == nil || o.Connection != t.Connection {
			continue
		}
		shared := slices.ContainsFunc(t.Subscription, func(s string) bool { return slices.Contains(o.Subscription, s) })
		if t.Queue != "" && strings.EqualFold(o.Queue, t.Queue) || t.Topic != "" && strings.EqualFold(o.Topic, t.Topic) && shared {
			x.Wrong(path, "function %s reads the same %s: each would receive only some of the messages; use separate ones", other, kindOf(t))
		}
	}
}

func kindOf(t *ServiceBusTrigger) string {
	if t.Queue != "" {
		return "queue"
	}
	return "subscription"
}

// The names that the service allows.
var (
	entityName       = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/~-]{0,258}[A-Za-z0-9_])?$`)
	subscriptionName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,48}[A-Za-z0-9_])?$`)
)

func (x *completion) checkEntity(path, name string) {
	if name != "" && !entityName.MatchString(name) {
		x.Wrong(path, "%q cannot be the name of a queue or topic: letters, digits, . - _ ~ and /, at most 260, with a letter or digit first and last", name)
	}
}

// checkScheduled rejects retries by a scheduled copy where the copy would not be equivalent: in a
// topic it reaches every subscription, and in a session it loses its order.
func (x *completion) checkScheduled(path string, of Trigger) {
	switch t := of.ServiceBus; {
	case t == nil:
		x.Wrong(path, "scheduled is only for Service Bus queues; remove it, or set hold")
	case t.Topic != "":
		x.Wrong(path, "scheduled is only for queues, because a copy sent to a topic reaches every subscription; set hold")
	case t.Sessions:
		x.Wrong(path, "scheduled does not work with sessions, because the copy would lose its place; set hold")
	}
}
