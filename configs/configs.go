// Package configs reads drover's configuration: one YAML file per daemon, checked strictly. The
// types in this file define it completely: the loader, the JSON schema and the checks are derived
// from them.
//
// Package decode has the meanings of the tags.
package configs

import (
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/values"
)

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

// TLS has the settings of encryption. All are PEM texts, usually file:PATH.
type TLS struct {
	CA         string `yaml:"ca" desc:"root certificates to verify the server's certificate"`
	Cert       string `yaml:"cert" desc:"the client's certificate"`
	Key        Secret `yaml:"key" desc:"the client's key"`
	ServerName string `yaml:"server_name" desc:"name that the server's certificate must have; by default the URL's host"`
}

// App is a directory of code and the pool of worker processes that runs it.
type App struct {
	Path        string  `yaml:"path" required:"true" desc:"the directory, or one file in it; relative to this file"`
	Interpreter string  `yaml:"interpreter" desc:"the Python or Node.js to run; by default, for Python: $VIRTUAL_ENV, else .venv beside the app, else python3; for Node.js: node"`
	Command     Strings `yaml:"command" desc:"for functions with a worker handler: the worker program and its arguments; it runs in path and speaks the protocol of docs/worker-protocol.md"`
	Processes   int     `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"number of worker processes; 0 or auto is FUNCTIONS_WORKER_PROCESS_COUNT if set, else as many as the load needs and as improve throughput (docs/tuning.md)"`
	Threads     int     `yaml:"threads" default:"0" zero:"auto" min:"0" max:"4096" desc:"threads per process, for functions that are not async and for the executor of those that are; 0 or auto is PYTHON_THREADPOOL_THREAD_COUNT if set, else measured; not for Node.js"`
	Coroutines  int     `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"async calls in flight per process; 0 or auto is measured"`

	Start        string   `yaml:"start" default:"spawn" enum:"spawn,template" desc:"how a worker starts: spawn loads the code in each; template loads it once, and forks workers from that process in milliseconds, sharing its memory. Not for code that starts threads or opens connections while it loads"`
	StartTimeout Duration `yaml:"start_timeout" default:"2m" min:"1s" max:"1h" desc:"time limit for a worker to load the code"`
	KillGrace    Duration `yaml:"kill_grace" default:"5s" min:"100ms" max:"10m" desc:"how long a cancelled call (for example at its timeout) may take to return before its worker is killed"`
	OnBlocked    string   `yaml:"on_blocked" default:"warn" enum:"warn,isolate,off" desc:"what to do about an async function that blocks the event loop, as time.sleep does: warn logs it once for each place and counts it; isolate also runs a repeat offender in a worker of its own; off disables detection, so that a crash or timeout cannot be attributed to the call that blocked. Python and Node.js"`
	Recycle      Recycle  `yaml:"recycle" desc:"when to replace a healthy worker: one at a time, after its replacement is ready; each limit is lowered by up to a tenth at random"`

	User          string      `yaml:"user" desc:"user that workers run as, a name or a number; only root can choose another; by default the daemon's user"`
	Group         string      `yaml:"group" desc:"group that workers run as; by default the user's"`
	NewPrivileges bool        `yaml:"new_privileges" default:"false" desc:"allow workers to gain privileges through set-user-ID programs such as sudo"`
	Environment   Environment `yaml:"environment" desc:"environment variables of workers"`
	Limits        Limits      `yaml:"limits" desc:"resource limits; a limit that this machine cannot enforce is an error"`
	Sandbox       Sandbox     `yaml:"sandbox" desc:"off, strict, or keys: what workers can access (docs/workers.md)"`

	// Set by Complete: the language of the workers, the directory to import from, the default
	// module of its functions, and the origins of the numbers. Language is empty for an app that no
	// function uses.
	Language      string `yaml:"-"`
	Dir           string `yaml:"-"`
	DefaultModule string `yaml:"-"`
	ProcessesFrom string `yaml:"-"`
	// Scaled is set if the user did not set Processes: then Processes is the maximum, and the
	// number follows the load.
	Scaled         bool   `yaml:"-"`
	ThreadsFrom    string `yaml:"-"`
	CoroutinesFrom string `yaml:"-"`
	// AutoThreads and AutoCoroutines are set if the user did not set the numbers: then they are the
	// first ones, and measurements change them.
	AutoThreads, AutoCoroutines bool `yaml:"-"`
}

// Recycle has the conditions for the replacement of a worker; 0 is never.
type Recycle struct {
	MaxInvocations int      `yaml:"max_invocations" default:"0" min:"0" max:"1000000000" desc:"replace after this many invocations, but not before 0.5 s and ten times the time to load the code; 0 is never"`
	MaxMemory      Size     `yaml:"max_memory" default:"0B" min:"0B" max:"4096GiB" desc:"replace when the worker's own memory (without cached files) exceeds this; 0B is never"`
	MaxAge         Duration `yaml:"max_age" default:"0s" min:"0s" max:"8760h" desc:"replace after this time; 0s is never"`
	MaxIdle        Duration `yaml:"max_idle" default:"0s" min:"0s" max:"8760h" desc:"replace a worker that has been idle for this long after work; 0s is never"`
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

// Retry has the settings after a failed attempt: a delay that doubles from Initial to Max, spread
// by Jitter, until MaxAttempts are used.
type Retry struct {
	MaxAttempts int      `yaml:"max_attempts" default:"5" min:"1" max:"1000" desc:"number of attempts before a message is dead-lettered"`
	Initial     Duration `yaml:"initial" default:"1s" min:"0s" max:"24h" desc:"delay after the first failure; it doubles with each further one"`
	Max         Duration `yaml:"max" default:"5m" min:"0s" max:"24h" desc:"maximum delay"`
	Mode        string   `yaml:"mode" default:"hold" enum:"hold,scheduled" desc:"how to delay a retry on Service Bus, which has no delay itself: hold keeps the message locked; scheduled sends a scheduled copy, for queues without sessions and duplicate detection"`
	Jitter      float64  `yaml:"jitter" default:"0.2" min:"0" max:"1" desc:"random variation of a delay: 0.2 is up to a fifth more or less"`
}

// Trigger is the source of messages. Exactly one kind is set.
type Trigger struct {
	NATS       *NATSTrigger       `yaml:"nats" desc:"a NATS JetStream consumer"`
	ServiceBus *ServiceBusTrigger `yaml:"servicebus" desc:"an Azure Service Bus queue, or a subscription of a topic"`

	StorageQueue *StorageQueueTrigger `yaml:"storage_queue" desc:"an Azure Storage queue"`
}

// triggerSettings are the settings of one kind of trigger. The methods are in the file of the kind.
type triggerSettings interface {
	connectionName() string
	describeTrigger() string
	// completeTrigger sets defaults that depend on other keys, and checks all. path is the
	// trigger's.
	completeTrigger(x *completion, path, name string, retry Retry)
}

// settings returns the settings of the kind that is set; nil if none is.
func (t Trigger) settings() triggerSettings {
	switch {
	case t.NATS != nil:
		return t.NATS
	case t.ServiceBus != nil:
		return t.ServiceBus
	case t.StorageQueue != nil:
		return t.StorageQueue
	}
	return nil
}

// Connection returns the name of the trigger's connection; empty for none.
func (t Trigger) Connection() string {
	if s := t.settings(); s != nil {
		return s.connectionName()
	}
	return ""
}

// Connections returns the names of the connections of a function's trigger and outputs.
func (f Function) Connections() (names []string) {
	if c := f.Trigger.Connection(); c != "" {
		names = append(names, c)
	}
	for _, o := range f.Output {
		names = append(names, o.Connection())
	}
	return names
}

// outputSettings are the settings of one kind of output. The methods are in the file of the kind.
type outputSettings interface {
	connectionName() string
	describeOutput() string
	completeOutput(x *completion, path string) // path is the output's
}

// target returns the settings of the kind that is set; nil if none is.
func (o Output) target() outputSettings {
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

// Connection returns the name of the output's connection.
func (o Output) Connection() string {
	if s := o.target(); s != nil {
		return s.connectionName()
	}
	return ""
}

// CancelOnLost reports whether a function is cancelled when its message is lost.
func (t Trigger) CancelOnLost() bool {
	return t.ServiceBus != nil && t.ServiceBus.CancelOnLost || t.StorageQueue != nil && t.StorageQueue.CancelOnLost
}

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
}

// NATSTrigger is a durable pull consumer of a JetStream stream.
type NATSTrigger struct {
	Connection    string   `yaml:"connection" desc:"one of connections; optional if there is only one"`
	Stream        string   `yaml:"stream" desc:"the stream; by default the function's name"`
	Subject       string   `yaml:"subject" desc:"subject to consume; by default the function's name if the stream is created, else the consumer's own filter"`
	Consumer      string   `yaml:"consumer" desc:"the durable consumer; by default the function's name"`
	Create        *bool    `yaml:"create" desc:"create the stream and the consumer if missing; by default true with the embedded server, else false"`
	AckWait       Duration `yaml:"ack_wait" default:"30s" min:"100ms" max:"24h" desc:"how long the server waits before it redelivers a message; drover extends this every third of it while the message is in flight"`
	OrderingToken int      `yaml:"ordering_token" default:"0" min:"0" max:"64" desc:"number of the subject token, from 1, by which messages are ordered: those with the same token are handled one at a time and in order; 0 is no order"`
	DeadLetters   string   `yaml:"dead_letters" desc:"stream for dead letters; by default the stream's name with -DEAD"`
}

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

// Outputs are the destinations of a function's results: each result is sent to all of them. In a
// file it is a list, or a single one.
type Outputs []Output

// Output is one destination. Exactly one kind is set.
type Output struct {
	NATS       *NATSOutput       `yaml:"nats" desc:"a subject of a stream"`
	ServiceBus *ServiceBusOutput `yaml:"servicebus" desc:"an Azure Service Bus queue or topic"`

	StorageQueue *StorageQueueOutput `yaml:"storage_queue" desc:"an Azure Storage queue"`
}

// NATSOutput is a subject.
type NATSOutput struct {
	Connection string `yaml:"connection" desc:"one of connections; optional if there is only one to NATS"`
	Subject    string `yaml:"subject" required:"true" desc:"subject for the results"`
}

// ServiceBusOutput is a queue or a topic. A result keeps the session of its message.
type ServiceBusOutput struct {
	Connection string `yaml:"connection" desc:"one of connections; optional if there is only one to Service Bus"`
	Queue      string `yaml:"queue" desc:"the queue"`
	Topic      string `yaml:"topic" desc:"the topic, instead of a queue"`
}

// StorageQueueOutput is a queue.
type StorageQueueOutput struct {
	Connection string   `yaml:"connection" desc:"one of connections; optional if there is only one to Azure Storage"`
	Queue      string   `yaml:"queue" required:"true" desc:"the queue"`
	Encoding   string   `yaml:"encoding" default:"base64" enum:"base64,text" desc:"encoding of results: base64, as Azure Functions expects; text, unchanged, without control characters"`
	Delay      Duration `yaml:"delay" default:"0s" min:"0s" max:"168h" desc:"how long a result stays hidden; must be less than time_to_live"`
	TimeToLive Duration `yaml:"time_to_live" default:"168h" min:"0s" max:"87600h" desc:"time after which the service deletes a result that was not received; 0s is never"`
}

// Handler runs a function. Exactly one kind is set.
type Handler struct {
	Go     string         `yaml:"go" desc:"name of a Go function that the program registered"`
	Exec   *ExecHandler   `yaml:"exec" desc:"a command that runs for each message"`
	HTTP   *HTTPHandler   `yaml:"http" desc:"an app that each message is posted to"`
	Python *PythonHandler `yaml:"python" desc:"a Python function in a pool of worker processes"`
	Node   *NodeHandler   `yaml:"node" desc:"a Node.js function in a pool of worker processes"`
	Worker *WorkerHandler `yaml:"worker" desc:"a function in a pool of your own worker processes"`
}

// PythonHandler is a Python function. Either App names an entry of apps, or Path defines an app for
// all functions with the same path.
type PythonHandler struct {
	App      string `yaml:"app" desc:"one of apps"`
	Module   string `yaml:"module" desc:"module to import, such as billing.jobs; by default the file that path names, else function_app"`
	Function string `yaml:"function" desc:"function in the module; by default the function's name in this file"`

	Path        string `yaml:"path" desc:"instead of app: directory of the code, or one file in it, relative to this file"`
	Interpreter string `yaml:"interpreter" desc:"with path: as in apps"`
	Processes   int    `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"with path: as in apps"`
	Threads     int    `yaml:"threads" default:"0" zero:"auto" min:"0" max:"4096" desc:"with path: as in apps"`
	Coroutines  int    `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"with path: as in apps"`
}

// NodeHandler is a Node.js function. Either App names an entry of apps, or Path defines an app for
// all functions with the same path.
type NodeHandler struct {
	App      string `yaml:"app" desc:"one of apps"`
	Module   string `yaml:"module" desc:"file relative to the app, with or without extension, CommonJS or ES, or the name of a package; by default the file that path names, else main of the app's package.json, else index.js"`
	Function string `yaml:"function" desc:"the export, which may be default; by default the function's name in this file"`

	Path        string `yaml:"path" desc:"instead of app: directory of the code, or one file in it, relative to this file"`
	Interpreter string `yaml:"interpreter" desc:"with path: as in apps"`
	Processes   int    `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"with path: as in apps"`
	Coroutines  int    `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"with path: as in apps"`
}

// WorkerHandler is a function of a third-party worker, in any language. Either App names an entry
// of apps that has a command, or Path and Command define an app for all functions with the same
// path.
type WorkerHandler struct {
	App      string `yaml:"app" desc:"one of apps"`
	Module   string `yaml:"module" desc:"passed to the worker together with function; optional"`
	Function string `yaml:"function" desc:"the function; by default the function's name in this file"`

	Path       string  `yaml:"path" desc:"instead of app: directory that the command runs in, relative to this file"`
	Command    Strings `yaml:"command" desc:"with path: as in apps"`
	Processes  int     `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"with path: as in apps"`
	Threads    int     `yaml:"threads" default:"0" zero:"auto" min:"0" max:"4096" desc:"with path: as in apps"`
	Coroutines int     `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"with path: as in apps"`
}

// ExecHandler is a command. Its exit status is the verdict: 0 is done, 65 is reject, and any other
// is a failed attempt.
type ExecHandler struct {
	Command   Strings `yaml:"command" required:"true" desc:"program and arguments, run without a shell; standard input is the body, standard output is the result"`
	Dir       string  `yaml:"dir" desc:"working directory, relative to this file; by default this file's directory"`
	MaxOutput Size    `yaml:"max_output" default:"1MiB" min:"1B" max:"128MiB" desc:"a larger output fails the attempt"`

	Environment Environment `yaml:"environment" desc:"environment variables of the command"`
}

// HTTPHandler is an app that receives messages by POST. docs/http.md has the meaning of its
// responses.
type HTTPHandler struct {
	URL         string            `yaml:"url" required:"true" desc:"URL to post each message to: http://127.0.0.1:8080/orders, https://..., or unix:/run/app.sock:/orders"`
	Ready       string            `yaml:"ready" desc:"URL that returns 2xx when the app is ready; no message is received before; by default the app is ready when it accepts connections"`
	CloudEvents string            `yaml:"cloudevents" default:"binary" enum:"binary,structured,off" desc:"form of the request: binary is the unchanged body with headers; structured is JSON; off is only the body"`
	Format      string            `yaml:"format" enum:"azure" desc:"instead of cloudevents: azure is the contract of custom handlers of Azure Functions"`
	Binding     string            `yaml:"binding" desc:"format azure: name of the trigger's binding in function.json"`
	DataType    string            `yaml:"data_type" default:"string" enum:"string,binary" desc:"format azure: the trigger's dataType in function.json; binary sends the body in base64"`
	Result      string            `yaml:"result" desc:"format azure: output binding whose value is the function's result, $return for the ReturnValue; by default the ReturnValue, else the outputs"`
	Batch       *HTTPBatch        `yaml:"batch" desc:"post several messages in one request; the answer has a result for each"`
	Headers     map[string]Secret `yaml:"headers" desc:"headers added to each request, such as Authorization; usually ${NAME} or file:PATH"`
	Status      map[string]string `yaml:"status" desc:"what an answer means, by status or class, instead of the defaults, such as 404: reject or 5xx: retry; values are done, retry, reject and pause"`
	MaxResponse Size              `yaml:"max_response" default:"1MiB" min:"1B" max:"128MiB" desc:"a larger answer fails the attempt"`
	HTTP2       bool              `yaml:"http2" default:"false" desc:"use HTTP/2 without TLS"`
	TLS         *TLS              `yaml:"tls" desc:"https: TLS settings of the connection; by default the system's root certificates are used"`
}

// HTTPBatch has the settings of requests with several messages.
type HTTPBatch struct {
	Max      int      `yaml:"max" default:"100" min:"1" max:"10000" desc:"maximum number of messages in one request"`
	MaxBytes Size     `yaml:"max_bytes" default:"4MiB" min:"1KiB" max:"128MiB" desc:"maximum body of one request; a larger message is sent alone"`
	Wait     Duration `yaml:"wait" default:"20ms" min:"0s" max:"1m" desc:"how long the first message of a request waits for more; it does not wait if no more can arrive"`
	Format   string   `yaml:"format" default:"json" enum:"json,multipart" desc:"json is an array of CloudEvents, or of plain objects if cloudevents is off; multipart has one part per message, in the form of a single request"`
}

// Duration is a time.Duration written as 1m30s.
type Duration = values.Duration

// Size is a number of bytes written as 512KiB or 1MiB (or kB, MB: powers of 1000).
type Size = values.Size

// Secret is a text that is never printed: its String and its JSON are ***.
type Secret = values.Secret

// Strings is a list, or a single text.
type Strings = values.Strings

// Ports is a list of TCP ports, or any.
type Ports = values.Ports

// Prefetch is a number, or auto, which is -1.
type Prefetch = values.Prefetch

// PrefetchAuto follows the measured rate.
const PrefetchAuto = values.PrefetchAuto

// Env looks up an environment variable, as os.LookupEnv does.
type Env = values.Env

// Position is a place in a file, counted from 1; the zero Position is nowhere.
type Position = problems.Position

// Problem is one error, and its place.
type Problem = problems.Problem

// Errors lists all errors of a configuration, in the file's order.
type Errors = problems.Errors

// Nearest returns the known word that is closest to a misspelt one, or "".
func Nearest(word string, known []string) string { return problems.Nearest(word, known) }
