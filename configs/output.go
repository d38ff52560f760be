package configs

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

func (o Output) kinds() []kind {
	return []kind{{"nats", o.NATS != nil}, {"servicebus", o.ServiceBus != nil}, {"storage_queue", o.StorageQueue != nil}}
}

// filledIn is a copy with the defaults of those that a program made.
func (o Outputs) filledIn() Outputs {
	out := slices.Clone(o)
	for i, output := range out {
		if output.StorageQueue != nil {
			queue := *output.StorageQueue
			setDefaults(reflect.ValueOf(&queue).Elem())
			out[i].StorageQueue = &queue
		}
	}
	return out
}

// outputs completes a copy of them.
func (x *completion) outputs(path string, given Outputs) Outputs {
	if _, written := x.where[path]; written && len(given) == 0 {
		x.wrong(path, "the list is empty; remove the key to drop results")
	}
	out := slices.Clone(given)
	for i := range out {
		at := path
		if _, listed := x.where[path+"[0]"]; listed || len(out) > 1 {
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		x.output(at, &out[i])
		for _, earlier := range out[:i] {
			if reflect.DeepEqual(earlier, out[i]) {
				x.wrong(at, "it is listed twice; each result would be sent twice")
			}
		}
	}
	return out
}

func (x *completion) output(path string, o *Output) {
	switch {
	case !x.oneKind(path, "results go to", o.kinds()):
	case o.NATS != nil:
		nats := *o.NATS
		x.connectionOf(path+".nats", &nats.Connection, "NATS", func(c Connection) bool { return len(c.NATS) > 0 })
		if !validSubject(nats.Subject) || strings.ContainsAny(nats.Subject, "*>") {
			x.wrong(path+".nats.subject", "%q is not a subject for results; use tokens separated by dots, without * and >", nats.Subject)
		}
		o.NATS = &nats
	case o.ServiceBus != nil:
		bus := *o.ServiceBus
		x.connectionOf(path+".servicebus", &bus.Connection, "Azure Service Bus", Connection.ServiceBus)
		if (bus.Queue == "") == (bus.Topic == "") {
			x.wrong(path+".servicebus", "set either queue or topic")
		}
		x.entity(path+".servicebus.queue", bus.Queue)
		x.entity(path+".servicebus.topic", bus.Topic)
		o.ServiceBus = &bus
	case o.StorageQueue != nil:
		queue := *o.StorageQueue
		x.storageQueueOutput(path+".storage_queue", &queue)
		o.StorageQueue = &queue
	}
}
