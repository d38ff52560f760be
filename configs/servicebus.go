package configs

import (
	"regexp"
	"slices"
	"strings"
)

func (x *completion) serviceBusTrigger(path, name string, t *ServiceBusTrigger) {
	if _, found := x.connectionOf(path, &t.Connection, "Azure Service Bus", Connection.ServiceBus); !found {
		return
	}
	switch {
	case t.Queue != "" && (t.Topic != "" || len(t.Subscription) > 0):
		x.wrong(path, "it has a queue and a topic or subscription; set either queue, or topic and subscription")
		return
	case t.Topic == "" && len(t.Subscription) > 0:
		x.wrong(path, "it has a subscription but no topic")
		return
	case t.Topic != "" && len(t.Subscription) == 0:
		t.Subscription = Strings{name}
	case t.Topic == "" && t.Queue == "":
		t.Queue = name
	}
	x.entity(path+".queue", t.Queue)
	x.entity(path+".topic", t.Topic)
	for i, s := range t.Subscription {
		switch {
		case !subscriptionName.MatchString(s):
			x.wrong(path+".subscription", "%q cannot be the name of a subscription: letters, digits, . - and _, at most 50, with a letter or digit first and last", s)
		case slices.Contains(t.Subscription[:i], s):
			x.wrong(path+".subscription", "%s is listed twice", s)
		}
	}
	if !t.Sessions {
		for _, key := range []string{"max_concurrent_sessions", "session_idle_timeout", "session_turn", "session_state"} {
			if at, given := x.where[path+"."+key]; given {
				x.problem(at, "%s.%s: this key requires sessions: true", path, key)
			}
		}
	}
	for _, other := range names(x.Functions) {
		o := x.Functions[other].Trigger.ServiceBus
		if other >= name || o == nil || o.Connection != t.Connection {
			continue
		}
		shared := slices.ContainsFunc(t.Subscription, func(s string) bool { return slices.Contains(o.Subscription, s) })
		if t.Queue != "" && strings.EqualFold(o.Queue, t.Queue) || t.Topic != "" && strings.EqualFold(o.Topic, t.Topic) && shared {
			x.wrong(path, "function %s reads the same %s: each would receive only some of the messages; use separate ones", other, kindOf(t))
		}
	}
}

func kindOf(t *ServiceBusTrigger) string {
	if t.Queue != "" {
		return "queue"
	}
	return "subscription"
}

// The names that the service takes.
var (
	entityName       = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/~-]{0,258}[A-Za-z0-9_])?$`)
	subscriptionName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,48}[A-Za-z0-9_])?$`)
)

func (x *completion) entity(path, name string) {
	if name != "" && !entityName.MatchString(name) {
		x.wrong(path, "%q cannot be the name of a queue or topic: letters, digits, . - _ ~ and /, at most 260, with a letter or digit first and last", name)
	}
}

// scheduled refuses a retry by a copy where a copy would not be the same: in a
// topic it reaches every subscription, and a session loses its order.
func (x *completion) scheduled(path string, t *ServiceBusTrigger) {
	switch {
	case t == nil:
		x.wrong(path, "scheduled is only for Service Bus queues; remove it, or set hold")
	case t.Topic != "":
		x.wrong(path, "scheduled is only for queues, because a copy sent to a topic reaches every subscription; set hold")
	case t.Sessions:
		x.wrong(path, "scheduled does not work with sessions, because the copy would lose its place; set hold")
	}
}
