// Package configs reads drover's configuration: one YAML file per daemon, checked strictly. Structs
// define it completely: the loader, the JSON schema and the checks are derived from them. Package
// decode has the meanings of their tags.
//
// Config is in this file. Each source and each kind of handler has a file with its struct, its
// checks and its description; complete.go has the checks that need several of them.
package configs

import "github.com/drover-run/drover/configs/problems"

// Config is one configuration file.
type Config struct {
	Version        int                   `yaml:"version" default:"1" enum:"1" desc:"the version of this file's format"`
	DataDir        string                `yaml:"data_dir" default:".drover" desc:"directory for data that must survive a restart, relative to this file; locked by one daemon at a time"`
	Drain          Duration              `yaml:"drain" default:"30s" min:"0s" max:"24h" desc:"how long a stop waits for messages in flight; after that they are cancelled and released"`
	InFlightMemory Size                  `yaml:"in_flight_memory" default:"0B" min:"0B" max:"4096GiB" desc:"limit of the message bodies that all functions hold, prefetched or in flight; receiving waits while it is reached; 0B is a quarter of the memory of the machine or the cgroup"`
	Log            Log                   `yaml:"log" desc:"level and format of the log"`
	Connections    map[string]Connection `yaml:"connections" desc:"message brokers, by a name of your choice; if empty, functions use the embedded NATS server"`
	Apps           map[string]App        `yaml:"apps" desc:"directories of code whose functions share a pool of worker processes, by a name of your choice"`
	Admin          Admin                 `yaml:"admin" desc:"the admin server, used by operators and by commands such as drover status"`
	Probes         Probes                `yaml:"probes" desc:"a server for health checks, without a token"`
	Traces         Traces                `yaml:"traces" desc:"OpenTelemetry traces of each message, sent to your collector; off by default"`
	Scale          Scale                 `yaml:"scale" desc:"numbers of worker processes and instances"`
	Functions      map[string]Function   `yaml:"functions" required:"true" desc:"the functions, by a name of your choice"`

	// File is the path that the configuration was read from; empty if none.
	File string `yaml:"-"`
	// Warnings are set by Complete: settings that work, but may be a mistake.
	Warnings []string `yaml:"-"`

	source    *problems.Source // the text that it was read from; nil if a program made it
	completed bool
}

// Log has the settings of the log.
type Log struct {
	Level  string `yaml:"level" default:"info" enum:"debug,info,warn,error" desc:"lowest level that is logged"`
	Format string `yaml:"format" default:"auto" enum:"auto,text,json" desc:"auto is text on a terminal and json elsewhere"`
}

// Function takes messages from a trigger and runs them by a handler.
type Function struct {
	Trigger     Trigger  `yaml:"trigger" required:"true" desc:"source of the messages: exactly one kind"`
	Handler     Handler  `yaml:"handler" required:"true" desc:"how the function runs: exactly one kind"`
	Concurrency int      `yaml:"concurrency" default:"0" zero:"auto" min:"0" max:"1000000" desc:"maximum number of messages in flight in this instance; 0 or auto is the handler's default, which for worker processes is measured"`
	Prefetch    Prefetch `yaml:"prefetch" default:"auto" desc:"messages prefetched beyond those in flight; auto is about a tenth of a second's worth at the measured rate"`
	Timeout     Duration `yaml:"timeout" default:"5m" min:"1ms" max:"24h" desc:"time limit of one attempt"`
	MaxBody     Size     `yaml:"max_body" default:"0B" min:"0B" max:"128MiB" desc:"larger messages are rejected without a call; 0B is the limit of the source"`
	Retry       Retry    `yaml:"retry" desc:"how failed messages are retried"`
	Output      Outputs  `yaml:"output" single:"true" desc:"where the function's result is sent before the message is completed: one output, or a list of outputs that all receive it; if empty, the result is dropped"`
}

// Connections returns the names of the connections of a function's trigger and outputs.
func (f Function) Connections() (names []string) {
	if c := f.Trigger.ConnectionName(); c != "" {
		names = append(names, c)
	}
	for _, o := range f.Output {
		names = append(names, o.ConnectionName())
	}
	return names
}

// Retry has the settings after a failed attempt: a delay that doubles from Initial to Max, spread
// by Jitter, until MaxAttempts are used.
type Retry struct {
	MaxAttempts int      `yaml:"max_attempts" default:"5" min:"1" max:"1000" desc:"number of attempts before a message is dead-lettered"`
	Initial     Duration `yaml:"initial" default:"1s" min:"0s" max:"24h" desc:"delay after the first failure; it doubles with each further one"`
	Max         Duration `yaml:"max" default:"5m" min:"0s" max:"24h" desc:"maximum delay"`
	Mode        string   `yaml:"mode" default:"hold" enum:"hold,scheduled" desc:"how to delay a retry on Service Bus, which has no delay itself: hold keeps the message locked; scheduled sends a scheduled copy, for queues without sessions and duplicate detection"`
	Jitter      float64  `yaml:"jitter" default:"0.2" min:"0" max:"1" desc:"random variation of a delay: 0.2 is up to a fifth more or less"`
}

// Connection is a connection to a source. The allowed keys depend on its kind, which is one of the
// keys nats, connection_string, namespace and storage_account.
type Connection struct {
	NATS             Strings `yaml:"nats" desc:"embedded, or the URLs of a cluster's servers"`
	ConnectionString Secret  `yaml:"connection_string" desc:"connection string of an Azure Service Bus namespace or an Azure Storage account; usually ${NAME} or file:PATH; a file is read again for each new connection"`
	Namespace        string  `yaml:"namespace" desc:"an Azure Service Bus namespace, authenticated with an identity: NAME.servicebus.windows.net"`
	StorageAccount   string  `yaml:"storage_account" desc:"name of an Azure Storage account, authenticated with an identity"`

	Identity    string `yaml:"identity" default:"auto" enum:"auto,managed,workload,certificate,cli" desc:"namespace and storage_account: auto tries the same as Azure's SDKs (environment, workload identity, managed identity, az login); the other values select one of them"`
	ClientID    string `yaml:"client_id" desc:"namespace and storage_account: client ID of the identity; needed if there are several, or with a certificate"`
	TenantID    string `yaml:"tenant_id" desc:"namespace and storage_account: tenant (directory) ID of an identity with a certificate"`
	Certificate Secret `yaml:"certificate" desc:"namespace and storage_account: certificate and key in PEM; usually file:PATH"`
	Endpoint    string `yaml:"endpoint" desc:"for a namespace, HOST:PORT if it is not reachable by its name; for a storage account, the https URL of its queues if it is not NAME.queue.core.windows.net"`

	Credentials Secret `yaml:"credentials" desc:"the contents of a .creds file; usually file:PATH"`
	NKey        Secret `yaml:"nkey" desc:"an nkey seed; usually file:PATH"`
	Token       Secret `yaml:"token" desc:"an access token"`
	User        string `yaml:"user" desc:"a user name"`
	Password    Secret `yaml:"password" desc:"the user's password"`
	TLS         *TLS   `yaml:"tls" desc:"TLS settings of the connection; by default the system's root certificates are used. Azure allows only ca"`

	Listen   string   `yaml:"listen" default:"127.0.0.1:0" desc:"embedded only: address at which other programs reach the server; port 0 picks a free one; off disables it"`
	Sync     Duration `yaml:"sync" default:"2m" min:"0s" max:"1h" desc:"embedded only: how often the store is synced to disk; 0s is after each write: slow, but it survives a power cut"`
	MaxStore Size     `yaml:"max_store" default:"0B" desc:"embedded only: maximum size of the store; 0B is three quarters of the free disk space"`

	// Set by Complete: the file of the connection string.
	connectionStringFile string
}

// identityOnly are the keys of a connection with an identity.
var identityOnly = []string{"identity", "client_id", "tenant_id", "certificate", "endpoint"}

// serverOnly are the keys of a connection that apply only to NATS.
var serverOnly = []string{"credentials", "nkey", "token", "user", "password", "tls.cert", "tls.key", "tls.server_name", "listen", "sync", "max_store"}

// Trigger is the source of messages. Exactly one kind is set.
type Trigger struct {
	NATS       *NATSTrigger       `yaml:"nats" desc:"a NATS JetStream consumer"`
	ServiceBus *ServiceBusTrigger `yaml:"servicebus" desc:"an Azure Service Bus queue, or a subscription of a topic"`

	StorageQueue *StorageQueueTrigger `yaml:"storage_queue" desc:"an Azure Storage queue"`
	Timer        *TimerTrigger        `yaml:"timer" desc:"a schedule, instead of messages"`
}

// triggerSettings are the settings of one kind of trigger. The methods are in the file of the kind.
type triggerSettings interface {
	connectionName() string
	describeTrigger() string
	// completeTrigger sets defaults that depend on other keys, and checks all. path is the
	// trigger's.
	completeTrigger(x *completion, path, name string, retry Retry)
}

// kindSettings returns the settings of the kind that is set; nil if none is.
func (t Trigger) kindSettings() triggerSettings {
	switch {
	case t.NATS != nil:
		return t.NATS
	case t.ServiceBus != nil:
		return t.ServiceBus
	case t.StorageQueue != nil:
		return t.StorageQueue
	case t.Timer != nil:
		return t.Timer
	}
	return nil
}

// ConnectionName returns the name of the trigger's connection; empty for none.
func (t Trigger) ConnectionName() string {
	if s := t.kindSettings(); s != nil {
		return s.connectionName()
	}
	return ""
}

// CancelOnLost reports whether a function is cancelled when its message is lost.
func (t Trigger) CancelOnLost() bool {
	return t.ServiceBus != nil && t.ServiceBus.CancelOnLost || t.StorageQueue != nil && t.StorageQueue.CancelOnLost || t.Timer != nil
}

// Outputs are the destinations of a function's results: each result is sent to all of them. In a
// file it is a list, or a single one.
type Outputs []Output

// Output is one destination. Exactly one kind is set.
type Output struct {
	NATS       *NATSOutput       `yaml:"nats" desc:"a subject of a stream"`
	ServiceBus *ServiceBusOutput `yaml:"servicebus" desc:"an Azure Service Bus queue or topic"`

	StorageQueue *StorageQueueOutput `yaml:"storage_queue" desc:"an Azure Storage queue"`
}

// outputSettings are the settings of one kind of output. The methods are in the file of the kind.
type outputSettings interface {
	connectionName() string
	describeOutput() string
	completeOutput(x *completion, path string) // path is the output's
}

// kindSettings returns the settings of the kind that is set; nil if none is.
func (o Output) kindSettings() outputSettings {
	switch {
	case o.NATS != nil:
		return o.NATS
	case o.ServiceBus != nil:
		return o.ServiceBus
	case o.StorageQueue != nil:
		return o.StorageQueue
	}
	return nil
}

// ConnectionName returns the name of the output's connection.
func (o Output) ConnectionName() string {
	if s := o.kindSettings(); s != nil {
		return s.connectionName()
	}
	return ""
}

// completion completes a configuration, and reports its problems.
type completion struct {
	*Config
	*problems.Source
}
