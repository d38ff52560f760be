package configs

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// StorageQueueTrigger is a queue.
type StorageQueueTrigger struct {
	Connection string `yaml:"connection" desc:"one of connections, with a connection_string or a storage_account; optional if there is only one of those"`
	Queue      string `yaml:"queue" desc:"the queue; by default the function's name"`
	Create     bool   `yaml:"create" default:"false" desc:"create the queue if missing"`
	Encoding   string `yaml:"encoding" default:"base64" enum:"base64,text,auto" desc:"encoding of bodies: base64, as Azure Functions and most SDKs write them; text, unchanged; auto reads both, and decodes any text that is valid base64"`

	Lease           Duration `yaml:"lease" default:"30s" min:"1s" max:"168h" desc:"visibility timeout of a message, renewed at half of it while the message is in flight; whole seconds"`
	MaxPollInterval Duration `yaml:"max_poll_interval" default:"10s" min:"100ms" max:"1h" desc:"maximum interval between polls of an empty queue"`
	MaxDequeueCount int      `yaml:"max_dequeue_count" default:"100" min:"0" max:"1000000" desc:"maximum dequeue count of a message, for any reason: failures, stops, crashes, also in other instances; after that it is moved to the poison queue; 0 is no limit"`
	PoisonQueue     string   `yaml:"poison_queue" desc:"queue for dead letters, created if missing; by default the queue's name with -poison"`
	PoisonFormat    string   `yaml:"poison_format" default:"body" enum:"body,envelope" desc:"format of messages in the poison queue: body is the unchanged message; envelope is JSON with the error, the attempts and the body"`
	CancelOnLost    bool     `yaml:"cancel_on_lease_lost" default:"false" desc:"cancel the function when its message's lease is lost, because the message will be redelivered"`
}

// StorageQueueOutput is a queue.
type StorageQueueOutput struct {
	Connection string   `yaml:"connection" desc:"one of connections; optional if there is only one to Azure Storage"`
	Queue      string   `yaml:"queue" required:"true" desc:"the queue"`
	Create     bool     `yaml:"create" default:"false" desc:"create the queue if missing"`
	Encoding   string   `yaml:"encoding" default:"base64" enum:"base64,text" desc:"encoding of results: base64, as Azure Functions expects; text, unchanged, without control characters"`
	Delay      Duration `yaml:"delay" default:"0s" min:"0s" max:"168h" desc:"how long a result stays hidden; must be less than time_to_live"`
	TimeToLive Duration `yaml:"time_to_live" default:"168h" min:"0s" max:"87600h" desc:"time after which the service deletes a result that was not received; 0s is never"`
}

// queueForm matches the names that Azure allows for a storage queue.
var queueForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

const (
	shortestQueueName = 3
	longestQueueName  = 63
	poisonSuffix      = "-poison"
)

func (x *completion) checkQueueName(path, name string) {
	if n := len(name); n < shortestQueueName || n > longestQueueName || !queueForm.MatchString(name) {
		x.Wrong(path, "%q cannot be the name of a storage queue: 3 to 63 lower-case letters, digits and single hyphens, with a letter or digit first and last", name)
	}
}

func (c Connection) describeAccount() string {
	if c.StorageAccount != "" {
		return fmt.Sprintf("the storage account %s, identity %s", c.StorageAccount, c.Identity)
	}
	parts := c.connectionParts()
	for _, name := range []string{"queueendpoint", "accountname"} {
		if parts[name] != "" {
			return "the storage account " + parts[name]
		}
	}
	return "the storage emulator at 127.0.0.1:10001"
}

func (t *StorageQueueTrigger) connectionName() string { return t.Connection }

func (t *StorageQueueTrigger) describeTrigger() string {
	text := fmt.Sprintf("storage queue %s on %s, as %s, lease %v, polled every %v at least", t.Queue, t.Connection, t.Encoding, t.Lease, t.MaxPollInterval)
	if t.Create {
		text += ", created if missing"
	}
	what := ""
	if t.PoisonFormat == "envelope" {
		what = " in envelopes"
	}
	return text + fmt.Sprintf(", dead letters to %s%s", t.PoisonQueue, what)
}

func (t *StorageQueueTrigger) completeTrigger(x *completion, path, name string, retry Retry) {
	path += ".storage_queue"
	if _, found := x.connectionOf(path, &t.Connection, "Azure Storage", Connection.Storage); !found {
		return
	}
	if t.Queue == "" {
		t.Queue = name
	}
	x.checkQueueName(path+".queue", t.Queue)
	switch {
	case t.PoisonQueue != "":
		x.checkQueueName(path+".poison_queue", t.PoisonQueue)
	case len(t.Queue) <= longestQueueName && len(t.Queue)+len(poisonSuffix) > longestQueueName:
		x.Wrong(path, "%s%s would be longer than 63 characters; set poison_queue", t.Queue, poisonSuffix)
	default:
		t.PoisonQueue = t.Queue + poisonSuffix
	}
	if t.PoisonQueue == t.Queue {
		x.Wrong(path+".poison_queue", "it is the queue itself; rejected messages would be received again")
	}
	if t.Lease.D()%time.Second != 0 {
		x.Wrong(path+".lease", "%v is not a whole number of seconds, which the service requires", t.Lease)
	}
	if t.MaxDequeueCount > 0 && t.MaxDequeueCount < retry.MaxAttempts {
		x.Wrong(path+".max_dequeue_count", "it is %d, less than retry.max_attempts (%d): a message would go to the poison queue before its attempts are used up", t.MaxDequeueCount, retry.MaxAttempts)
	}
	for _, other := range sortedNames(x.Functions) {
		o := x.Functions[other].Trigger.StorageQueue
		if other < name && o != nil && o.Connection == t.Connection && strings.EqualFold(o.Queue, t.Queue) {
			x.Wrong(path, "function %s reads the same queue: each would receive only some of the messages; use separate ones", other)
		}
	}
}

func (o *StorageQueueOutput) connectionName() string { return o.Connection }

func (o *StorageQueueOutput) describeOutput() string {
	text := fmt.Sprintf("storage queue %s on %s, as %s", o.Queue, o.Connection, o.Encoding)
	if o.Create {
		text += ", created if missing"
	}
	return text
}

func (o *StorageQueueOutput) completeOutput(x *completion, path string) {
	path += ".storage_queue"
	x.connectionOf(path, &o.Connection, "Azure Storage", Connection.Storage)
	x.checkQueueName(path+".queue", o.Queue)
	if o.TimeToLive > 0 && o.Delay >= o.TimeToLive {
		x.Wrong(path+".delay", "it is %v, and time_to_live %v: a result would expire before it is visible", o.Delay, o.TimeToLive)
	}
}
