package configs

import (
	"regexp"
	"strings"
	"time"
)

// queueForm is what Azure allows as the name of a storage queue.
var queueForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

const (
	shortestQueueName = 3
	longestQueueName  = 63
	poisonSuffix      = "-poison"
)

func (x *completion) storageQueueName(path, name string) {
	if n := len(name); n < shortestQueueName || n > longestQueueName || !queueForm.MatchString(name) {
		x.wrong(path, "%q cannot be the name of a storage queue: 3 to 63 lower-case letters, digits and single hyphens, with a letter or digit first and last", name)
	}
}

func (x *completion) storageQueueTrigger(path, name string, t *StorageQueueTrigger, maxAttempts int) {
	if _, found := x.connectionOf(path, &t.Connection, "Azure Storage", Connection.Storage); !found {
		return
	}
	if t.Queue == "" {
		t.Queue = name
	}
	x.storageQueueName(path+".queue", t.Queue)
	switch {
	case t.PoisonQueue != "":
		x.storageQueueName(path+".poison_queue", t.PoisonQueue)
	case len(t.Queue) <= longestQueueName && len(t.Queue)+len(poisonSuffix) > longestQueueName:
		x.wrong(path, "%s%s would be longer than 63 characters; set poison_queue", t.Queue, poisonSuffix)
	default:
		t.PoisonQueue = t.Queue + poisonSuffix
	}
	if t.PoisonQueue == t.Queue {
		x.wrong(path+".poison_queue", "it is the queue itself; rejected messages would be received again")
	}
	if t.Lease.D()%time.Second != 0 {
		x.wrong(path+".lease", "%v is not a whole number of seconds, which the service requires", t.Lease)
	}
	if t.MaxDequeueCount > 0 && t.MaxDequeueCount < maxAttempts {
		x.wrong(path+".max_dequeue_count", "it is %d, less than retry.max_attempts (%d): a message would go to the poison queue before its attempts are used up", t.MaxDequeueCount, maxAttempts)
	}
	for _, other := range names(x.Functions) {
		o := x.Functions[other].Trigger.StorageQueue
		if other < name && o != nil && o.Connection == t.Connection && strings.EqualFold(o.Queue, t.Queue) {
			x.wrong(path, "function %s reads the same queue: each would receive only some of the messages; use separate ones", other)
		}
	}
}

func (x *completion) storageQueueOutput(path string, o *StorageQueueOutput) {
	x.connectionOf(path, &o.Connection, "Azure Storage", Connection.Storage)
	x.storageQueueName(path+".queue", o.Queue)
	if o.TimeToLive > 0 && o.Delay >= o.TimeToLive {
		x.wrong(path+".delay", "it is %v, and time_to_live %v: a result would expire before it is visible", o.Delay, o.TimeToLive)
	}
}
