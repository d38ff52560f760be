package functionapp

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
)

// This file translates storage queues.

var queueKinds = []kind{
	{name: "queueTrigger", translate: queueTrigger},
	{name: "queue", out: true, output: queueOutput},
}

// storage is the service of storage accounts.
var storage = service{
	name: "Azure Storage", usual: "AzureWebJobsStorage", identity: []string{"queueServiceUri", "serviceUri", "accountName"},
	refuse: func(c configs.Connection) string {
		if !c.Storage() {
			return "is not a connection string of a storage account, such as UseDevelopmentStorage=true"
		}
		return ""
	},
	use: func(c *configs.Connection, key, value string) (err error) {
		if key == "accountName" {
			c.StorageAccount = value
			return nil
		}
		c.StorageAccount, c.Endpoint, err = account(value)
		return err
	},
	fits: configs.Connection.Storage,
}

var accountForm = regexp.MustCompile(`^[a-z0-9]{3,24}$`)

// account returns the account and the endpoint of the address of a storage account's queues.
func account(address string) (name, endpoint string, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", "", errors.New("write the https address of the account's queues, such as https://contoso.queue.core.windows.net")
	}
	name, rest, _ := strings.Cut(u.Hostname(), ".")
	if !accountForm.MatchString(name) || rest == "" {
		name = strings.Trim(u.Path, "/") // of an address such as https://host:10001/account
	}
	if !accountForm.MatchString(name) {
		return "", "", errors.New("it names no storage account")
	}
	if u.Host != name+".queue.core.windows.net" {
		endpoint = strings.TrimSuffix(address, "/")
	}
	return name, endpoint, nil
}

func queueTrigger(t *Translation, f *Function, b Binding, to *configs.Function) {
	host := t.app.host
	own := withDefaults[configs.StorageQueueTrigger]()
	own.Connection, own.Queue = t.connection(*f, b, &storage), t.queueName(f, b)
	own.Create, own.Encoding, own.MaxDequeueCount = true, host.encoding(), mostAttempts
	own.MaxPollInterval = configs.Duration(host.span("extensions.queues.maxPollingInterval", time.Minute))
	attempts, _ := host.number("extensions.queues.maxDequeueCount", 5)
	to.Trigger.StorageQueue, to.Concurrency = &own, host.queueConcurrency()
	to.Retry = fixed(attempts, host.span("extensions.queues.visibilityTimeout", 0))
	f.trigger = fmt.Sprintf("storage queue %s on %s", own.Queue, own.Connection)
}

// queueOutput returns the output of a binding. The queue is created if it is missing, as on Azure.
func queueOutput(t *Translation, f *Function, b Binding) configs.Output {
	own := withDefaults[configs.StorageQueueOutput]()
	own.Connection, own.Queue = t.connection(*f, b, &storage), t.queueName(f, b)
	own.Create, own.Encoding = true, t.app.host.encoding()
	return configs.Output{StorageQueue: &own}
}

// encoding returns the encoding of the bodies in storage queues.
func (h host) encoding() string {
	if s, found := h.lookup("extensions.queues.messageEncoding"); found && strings.EqualFold(s.text, "none") {
		return "text"
	}
	return "base64"
}

// queueForm matches the names that Azure allows for a storage queue.
var queueForm = regexp.MustCompile(`^[a-z0-9](-?[a-z0-9])+$`)

// queueName returns the name of a storage queue. With one that Azure refuses the function does not
// run.
func (t *Translation) queueName(f *Function, b Binding) string {
	name := t.name(*f, b, "queueName")
	if len(name) > 0 && (len(name) < 3 || len(name) > 63 || !queueForm.MatchString(name)) {
		f.leave(b, fmt.Sprintf("%q cannot be the name of a storage queue: 3 to 63 lower-case letters, digits and single hyphens, with a letter or digit first and last", name))
	}
	return name
}
