// Package configs reads drover's configuration: one YAML file per daemon, checked strictly. Structs
// define it completely: loader, schema and checks are derived from the tags, which package decode reads.
//
// A Go program makes a configuration with New or Load. Zero values of its fields mean the defaults. The
// changelog has every change of the package, as of the file.
//
// Config is in this file. Each source and each kind of handler has a file with its struct, its
// checks and its description; complete.go has the checks that need several of them.
package configs

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/drover-run/drover/configs/problems"
)

// Config is one configuration file.
type Config struct {
	Version        int                   `yaml:"version" default:"1" enum:"1" desc:"the version of this file's format"`
	DataDir        string                `yaml:"data_dir" default:".drover" desc:"directory for data that must survive a restart, relative to this file; locked by one daemon at a time"`
	EnvFile        EnvFiles              `yaml:"env_file" first:"true" like:".env" desc:"files of environment variables, one NAME=VALUE per line, for ${NAME} in this file and for functions; a variable of drover's own environment wins (docs/configuration.md)"`
	Drain          Duration              `yaml:"drain" default:"30s" min:"0s" max:"24h" desc:"how long a stop waits for messages in flight; after that they are cancelled and released"`
	InFlightMemory Size                  `yaml:"in_flight_memory" default:"0B" min:"0B" max:"4096GiB" desc:"limit of the message bodies that all functions hold, prefetched or in flight; receiving waits while it is reached; 0B is a quarter of the memory of the machine or the cgroup"`
	Log            Log                   `yaml:"log" like:"{level: info}" desc:"level and format of the log"`
	Connections    map[string]Connection `yaml:"connections" like:"{nats: embedded}" desc:"message brokers, by a name of your choice; if empty, functions use the embedded NATS server"`
	Apps           map[string]App        `yaml:"apps" like:"{path: ./app}" desc:"directories of code whose functions share a pool of worker processes, by a name of your choice"`
	Admin          Admin                 `yaml:"admin" like:"{listen: unix}" desc:"the admin server, used by operators and by commands such as drover status"`
	Probes         Probes                `yaml:"probes" like:"{listen: \":8081\"}" desc:"a server for health checks, without a token"`
	HTTP           HTTPServer            `yaml:"http" like:"{listen: \"127.0.0.1:7071\"}" desc:"the server of functions with an http trigger"`
	Traces         Traces                `yaml:"traces" like:"{endpoint: \"http://127.0.0.1:4318\"}" desc:"OpenTelemetry traces of each message, sent to your collector; off by default"`
	Scale          Scale                 `yaml:"scale" like:"{instances: {max: 4}}" desc:"numbers of worker processes and instances"`
	Defaults       Defaults              `yaml:"defaults" like:"{timeout: 1m}" desc:"values for all functions; a function's own keys win, also single keys of retry"`
	Functions      map[string]Function   `yaml:"functions" required:"true" from:"defaults" like:"{trigger: {nats: {}}, handler: {python: {path: ./app}}}" desc:"the functions, by a name of your choice"`

	// File is the path that the configuration was read from; empty if none. It may be the directory
	// of a function app.
	File          string `yaml:"-"`
	OfFunctionApp `yaml:"-"`
	// Warnings are set by Complete: settings that work, but may be a mistake.
	Warnings []string `yaml:"-"`

	source   *problems.Source // its text; nil if a program made it
	progress `yaml:"-"`
}

type progress struct {
	completed bool
	added     map[string]Function // by AddFunctions
}

// OfFunctionApp has the fields that only the configuration of a function app has.
type OfFunctionApp struct {
	// FunctionApp is the input from which functionapp.Restore makes this configuration; nil if it is
	// not for a function app. It has secrets.
	FunctionApp json.RawMessage
	// NotRun are the functions of a function app that do not run.
	NotRun []NotRun
}

// NotRun is a function of a function app that does not run. It is disabled, or failed, or drover
// lacks what it needs.
type NotRun struct {
	Function, Reason string
	Disabled, Failed bool
}

// Log has the settings of the log.
type Log struct {
	Level  string `yaml:"level" default:"info" enum:"debug,info,warn,error" desc:"lowest level that is logged"`
	Format string `yaml:"format" default:"auto" enum:"auto,text,json" desc:"auto is easy to read on a terminal, and json elsewhere; text has key=value pairs"`
	Done   *bool  `yaml:"done" desc:"log each completed message, at level info; by default only on a terminal, while fewer than 20 a second complete"`
}

// Function takes messages from a trigger and runs them by a handler.
type Function struct {
	Trigger     Trigger  `yaml:"trigger" required:"true" like:"{nats: {}}" desc:"source of the messages: exactly one kind"`
	Handler     Handler  `yaml:"handler" required:"true" like:"{python: {path: ./app}}" desc:"how the function runs: exactly one kind"`
	Concurrency int      `yaml:"concurrency" default:"0" zero:"auto" min:"0" max:"1000000" desc:"maximum number of messages in flight in this instance; 0 or auto is as many as the handler takes at once: measured for worker processes, 64 HTTP requests, 256 Go calls, one command per core"`
	Prefetch    Prefetch `yaml:"prefetch" default:"auto" desc:"messages prefetched beyond those in flight; auto is about a tenth of a second's worth at the measured rate"`
	Timeout     Duration `yaml:"timeout" default:"5m" min:"1ms" max:"24h" desc:"time limit of one attempt"`
	MaxBody     Size     `yaml:"max_body" default:"0B" min:"0B" max:"128MiB" desc:"larger messages are rejected without a call; 0B is the limit of the source"`
	Retry       Retry    `yaml:"retry" like:"{max_attempts: 5, initial: 1s}" desc:"how failed messages are retried"`
	Batch       Batch    `yaml:"batch" like:"{size: 10}" desc:"pass several messages to the function in one call"`
	Output      Outputs  `yaml:"output" single:"true" like:"{nats: {subject: results}}" desc:"where the function's result is sent before the message is completed: one output, or a list of outputs that all receive it; if empty, the result is dropped. An output with a name receives only what the function sends to that name"`
	LogLevel    string   `yaml:"log_level" default:"auto" enum:"auto,debug,info,warn,error" desc:"lowest level that is logged of this function; auto is log.level"`
}

// Defaults are the keys that a file can set for all functions. The tags are the same as in Function.
type Defaults struct {
	Concurrency int      `yaml:"concurrency" default:"0" zero:"auto" min:"0" max:"1000000" desc:"as in functions"`
	Prefetch    Prefetch `yaml:"prefetch" default:"auto" desc:"as in functions"`
	Timeout     Duration `yaml:"timeout" default:"5m" min:"1ms" max:"24h" desc:"as in functions"`
	MaxBody     Size     `yaml:"max_body" default:"0B" min:"0B" max:"128MiB" desc:"as in functions"`
	Retry       Retry    `yaml:"retry" like:"{max_attempts: 5, initial: 1s}" desc:"as in functions; a function with an http trigger keeps max_attempts 1 unless it sets that itself"`
	LogLevel    string   `yaml:"log_level" default:"auto" enum:"auto,debug,info,warn,error" desc:"as in functions"`
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

// TakesResult reports whether the function's result goes anywhere: to an output without a name, or
// to a client that waits for it.
func (f Function) TakesResult() bool { return f.Trigger.HTTP != nil || f.Output.TakesResult() }

// Batch has the settings of a function that takes several messages in one call.
type Batch struct {
	Size   int      `yaml:"size" default:"0" min:"0" max:"4096" desc:"maximum number of messages in a call, which then takes a list; 0: each call takes one message"`
	Min    int      `yaml:"min" default:"0" min:"0" max:"4096" desc:"number of messages for which a call waits, at most for window; 0 is size"`
	Window Duration `yaml:"window" default:"0s" min:"0s" max:"1h" desc:"how long a call waits for further messages after its first; 0s: not at all, it takes the messages that have arrived"`
}

// String describes batches.
func (b Batch) String() string {
	if b.Window == 0 {
		return fmt.Sprintf("up to %d messages in a call, without waiting for more", b.Size)
	}
	return fmt.Sprintf("up to %d messages in a call, which waits %v for %d", b.Size, b.Window, cmp.Or(b.Min, b.Size))
}

// checkBatch checks the settings of batches, and that the function can have them.
func (f Function) checkBatch(x *problems.Source, path string) {
	b := f.Batch
	switch {
	case b.Size == 0 && (b.Min > 0 || b.Window > 0):
		x.Wrong(path, "size is missing: set the maximum number of messages in a call")
	case b.Size == 0:
	case b.Min > b.Size:
		x.Wrong(path+".min", "it is more than size (%d)", b.Size)
	case b.Min > 0 && b.Window == 0:
		x.Wrong(path+".min", "it has no effect without window: set how long a call waits for that many messages")
	case f.Concurrency > 0 && f.Concurrency < b.Size:
		x.Wrong(path+".size", "it is more than concurrency (%d), the maximum number of messages in flight", f.Concurrency)
	case f.Handler.Exec != nil:
		x.Wrong(path, "a command takes one message; remove batch")
	case f.Handler.HTTP != nil:
		x.Wrong(path, "for an HTTP app, set handler.http.batch: the app answers with a result for each message")
	case f.Trigger.HTTP != nil:
		x.Wrong(path, "a request needs its own response; remove batch")
	case f.Trigger.Timer != nil:
		x.Wrong(path, "a timer has one run at a time; remove batch")
	case f.Trigger.ServiceBus != nil && f.Trigger.ServiceBus.SessionState:
		x.Wrong(path, "a call with session_state has one session, and a batch has messages of several; remove one of the two")
	}
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
	NATS       *NATSTrigger       `yaml:"nats" like:"{stream: orders}" desc:"a NATS JetStream consumer"`
	ServiceBus *ServiceBusTrigger `yaml:"servicebus" like:"{queue: orders}" desc:"an Azure Service Bus queue, or a subscription of a topic"`

	StorageQueue *StorageQueueTrigger `yaml:"storage_queue" like:"{queue: orders}" desc:"an Azure Storage queue"`
	Timer        *TimerTrigger        `yaml:"timer" like:"{schedule: \"0 */5 * * * *\"}" desc:"a schedule, instead of messages"`
	HTTP         *HTTPTrigger         `yaml:"http" like:"{route: orders}" desc:"HTTP requests; the function's result is the response"`

	// Program is set if the program has the trigger, instead of one of these kinds.
	Program bool `yaml:"-"`
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
	case t.HTTP != nil:
		return t.HTTP
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
	return t.ServiceBus != nil && t.ServiceBus.CancelOnLost || t.StorageQueue != nil && t.StorageQueue.CancelOnLost || t.Timer != nil ||
		t.HTTP != nil && (t.HTTP.CancelOnDisconnect == nil || *t.HTTP.CancelOnDisconnect)
}

// Outputs are the destinations of what a function returns: its result is sent to all of those without
// a name. In a file it is a list, or a single one.
type Outputs []Output

// OutputNames returns the names of the named outputs.
func (o Outputs) OutputNames() (names []string) {
	for _, each := range o.OnlyNamed() {
		names = append(names, each.Name)
	}
	return names
}

// OnlyNamed returns the named outputs.
func (o Outputs) OnlyNamed() Outputs {
	return slices.DeleteFunc(slices.Clone(o), func(each Output) bool { return each.Name == "" })
}

// TakesResult reports whether the function's result is sent to any of them.
func (o Outputs) TakesResult() bool { return len(o.OutputNames()) < len(o) }

// Output is one destination. Exactly one kind is set.
type Output struct {
	Name       string            `yaml:"name" desc:"name under which the function sends to this output, which then receives nothing else; an output without a name receives the function's result"`
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
