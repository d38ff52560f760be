// Package configs is drover's configuration: one YAML file a daemon, read
// strictly. The types in this file are the whole of it: the loader, the JSON
// schema and the checks are made from them.
//
// A `default` tag is the value of a key that is left out, `desc` what the schema
// says about it, `min`, `max` and `enum` its bounds.
package configs

import "time"

// Config is one file.
type Config struct {
	Version        int                   `yaml:"version" default:"1" enum:"1" desc:"the version of this file's format"`
	DataDir        string                `yaml:"data_dir" default:".drover" desc:"where the daemon keeps what must outlive it; relative to this file; one daemon at a time"`
	Drain          Duration              `yaml:"drain" default:"30s" min:"0s" max:"24h" desc:"how long a stop waits for what is in flight, before it is cut short and given back"`
	InFlightMemory Size                  `yaml:"in_flight_memory" default:"0B" min:"0B" max:"4096GiB" desc:"how many bytes of message bodies all functions hold at most, prefetched or in flight; then receiving waits; 0B is a quarter of the memory that the machine or the cgroup gives"`
	Log            Log                   `yaml:"log" desc:"what is logged, and how"`
	Connections    map[string]Connection `yaml:"connections" desc:"where messages come from, by a name of your choice; without any, functions use the embedded NATS server"`
	Apps           map[string]App        `yaml:"apps" desc:"directories of code whose functions share a pool of worker processes, by a name of your choice"`
	Admin          Admin                 `yaml:"admin" desc:"the server that drover status and the like, and operators, talk to"`
	Probes         Probes                `yaml:"probes" desc:"a server for health checks, without a token"`
	Traces         Traces                `yaml:"traces" desc:"OpenTelemetry: what became of each message, step by step, in a collector of yours; off by default"`
	Scale          Scale                 `yaml:"scale" desc:"how many worker processes and instances there are"`
	Functions      map[string]Function   `yaml:"functions" required:"true" desc:"what runs, by a name of your choice"`

	// File is the path that the configuration was read from; empty if none.
	File string `yaml:"-"`
	// Warnings are found by Complete: what works, but may not be meant.
	Warnings []string `yaml:"-"`

	source    *source // what it was read from; nil for one made by a program
	completed bool
}

// Log is what is logged, and how.
type Log struct {
	Level  string `yaml:"level" default:"info" enum:"debug,info,warn,error" desc:"the least level that is logged"`
	Format string `yaml:"format" default:"auto" enum:"auto,text,json" desc:"auto is text on a terminal and json elsewhere"`
}

// Connection is a way to a source. Which keys it may have follows from its kind,
// which is one of the keys nats, connection_string, namespace and storage_account.
type Connection struct {
	NATS             Strings `yaml:"nats" desc:"embedded, or the URLs of a cluster's servers"`
	ConnectionString Secret  `yaml:"connection_string" desc:"of an Azure Service Bus namespace or an Azure Storage account; usually ${NAME} or file:PATH, which is read again when it is needed again"`
	Namespace        string  `yaml:"namespace" desc:"an Azure Service Bus namespace, reached with an identity: NAME.servicebus.windows.net"`
	StorageAccount   string  `yaml:"storage_account" desc:"the name of an Azure Storage account, reached with an identity"`

	Identity    string `yaml:"identity" default:"auto" enum:"auto,managed,workload,certificate,cli" desc:"namespace and storage_account: auto tries what Azure's SDKs try (the environment, a workload identity, a managed identity, az login); the others are one of them"`
	ClientID    string `yaml:"client_id" desc:"namespace and storage_account: the identity's client id, where there are several, or with a certificate"`
	TenantID    string `yaml:"tenant_id" desc:"namespace and storage_account: the directory of an identity with a certificate"`
	Certificate Secret `yaml:"certificate" desc:"namespace and storage_account: PEM, the certificate and its key; usually file:PATH"`
	Endpoint    string `yaml:"endpoint" desc:"HOST:PORT, where a namespace is not reached by its name; the https URL of its queues, where a storage account is not NAME.queue.core.windows.net"`

	Credentials Secret `yaml:"credentials" desc:"the contents of a .creds file; usually file:PATH"`
	NKey        Secret `yaml:"nkey" desc:"an nkey seed; usually file:PATH"`
	Token       Secret `yaml:"token" desc:"an access token"`
	User        string `yaml:"user" desc:"a user name"`
	Password    Secret `yaml:"password" desc:"the user's password"`
	TLS         *TLS   `yaml:"tls" desc:"how the connection is encrypted; without, the machine's roots are used. With Azure only ca"`

	Listen   string   `yaml:"listen" default:"127.0.0.1:0" desc:"embedded only: where other programs reach the server; port 0 picks a free one; off for nobody"`
	Sync     Duration `yaml:"sync" default:"2m" min:"0s" max:"1h" desc:"embedded only: how often the store is synced to disk; 0s is after each write, which survives a power cut, and is slow"`
	MaxStore Size     `yaml:"max_store" default:"0B" desc:"embedded only: the most that the store may hold; 0B is three quarters of the free disk"`

	// What Complete knows of it: the file that the connection string is from.
	connectionStringFile string
}

// TLS is how a connection is encrypted. All are PEM texts, usually file:PATH.
type TLS struct {
	CA         string `yaml:"ca" desc:"the roots that the server's certificate is checked against"`
	Cert       string `yaml:"cert" desc:"the client's certificate"`
	Key        Secret `yaml:"key" desc:"the client's key"`
	ServerName string `yaml:"server_name" desc:"the name that the server's certificate must have, where it is not the URL's host"`
}

// App is a directory of code and the pool of worker processes that runs it.
type App struct {
	Path        string  `yaml:"path" required:"true" desc:"the directory, or one file in it; relative to this file"`
	Interpreter string  `yaml:"interpreter" desc:"the Python or Node.js to run; else, for Python, $VIRTUAL_ENV, else .venv beside the app, else python3; for Node.js, node"`
	Command     Strings `yaml:"command" desc:"the program that is a worker of this app, and its arguments, for functions with a worker handler; it runs in path and speaks docs/worker-protocol.md"`
	Processes   int     `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"worker processes; 0, or auto, is FUNCTIONS_WORKER_PROCESS_COUNT where it is set, else as many as the load needs, and as measuring says that it pays (docs/tuning.md)"`
	Threads     int     `yaml:"threads" default:"0" zero:"auto" min:"0" max:"4096" desc:"threads a process, for functions that are not async, and for the executor of those that are; 0, or auto, is PYTHON_THREADPOOL_THREAD_COUNT where it is set, else found by measuring; not for Node.js"`
	Coroutines  int     `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"async calls that a process has in flight; 0, or auto, is found by measuring"`

	Start        string   `yaml:"start" default:"spawn" enum:"spawn,template" desc:"how a worker begins: spawn loads the code in each; template loads it once, in a process that workers are forked from, in milliseconds and sharing its memory: not for code that starts threads or opens connections while it loads"`
	StartTimeout Duration `yaml:"start_timeout" default:"2m" min:"1s" max:"1h" desc:"how long a worker may take to load the code"`
	KillGrace    Duration `yaml:"kill_grace" default:"5s" min:"100ms" max:"10m" desc:"how long a call that was cancelled, as at its timeout, has to end; then its worker is killed"`
	OnBlocked    string   `yaml:"on_blocked" default:"warn" enum:"warn,isolate,off" desc:"what is done about an async function that blocks the event loop, as with time.sleep: warn logs it, once for each place, and counts; isolate also runs it apart from others when it goes on; off does not look, and then nobody knows whom to charge; in Python and Node.js"`
	Recycle      Recycle  `yaml:"recycle" desc:"when a worker is replaced though nothing is wrong with it: one at a time, when the one in its place is ready; each has up to a tenth less, by chance"`

	User          string      `yaml:"user" desc:"whom workers run as, a name or a number; only root can run them as another; by default the daemon's own user"`
	Group         string      `yaml:"group" desc:"their group; by default the user's"`
	NewPrivileges bool        `yaml:"new_privileges" default:"false" desc:"let workers gain rights by set-user-ID programs, such as sudo"`
	Environment   Environment `yaml:"environment" desc:"what of the daemon's environment workers get"`
	Limits        Limits      `yaml:"limits" desc:"of resources; one that this machine cannot keep is refused"`
	Sandbox       Sandbox     `yaml:"sandbox" desc:"off or strict, or keys: what workers can reach (docs/workers.md)"`

	// What Complete makes of it: whose workers run it, the directory to import from,
	// the module that is meant where a function names none, and where the numbers come
	// from. Language is empty for an app that no function uses.
	Language      string `yaml:"-"`
	Dir           string `yaml:"-"`
	DefaultModule string `yaml:"-"`
	ProcessesFrom string `yaml:"-"`
	// Scaled is set where nobody gave Processes: then they are the most, and follow
	// the load.
	Scaled         bool   `yaml:"-"`
	ThreadsFrom    string `yaml:"-"`
	CoroutinesFrom string `yaml:"-"`
	// AutoThreads and AutoCoroutines are set where nobody gave those: then they are
	// the numbers to begin with, and measuring finds others.
	AutoThreads, AutoCoroutines bool `yaml:"-"`
}

// Recycle is when workers are replaced; 0 is never.
type Recycle struct {
	MaxInvocations int      `yaml:"max_invocations" default:"0" min:"0" max:"1000000000" desc:"after so many invocations, but not before it has lived 0.5 s and ten times as long as one takes to load the code; 0 is never"`
	MaxMemory      Size     `yaml:"max_memory" default:"0B" min:"0B" max:"4096GiB" desc:"when so much memory is its own (not what it has read of files); 0B is never"`
	MaxAge         Duration `yaml:"max_age" default:"0s" min:"0s" max:"8760h" desc:"after so long; 0s is never"`
	MaxIdle        Duration `yaml:"max_idle" default:"0s" min:"0s" max:"8760h" desc:"when it has had nothing to do for so long, after it had something; 0s is never"`
}

// Function is what runs: messages from a trigger through a handler.
type Function struct {
	Trigger     Trigger  `yaml:"trigger" required:"true" desc:"where the messages come from: exactly one kind"`
	Handler     Handler  `yaml:"handler" required:"true" desc:"what runs the function: exactly one kind"`
	Concurrency int      `yaml:"concurrency" default:"0" zero:"auto" min:"0" max:"1000000" desc:"the most messages in flight at once in this instance; 0, or auto, is the handler's default, which for worker processes is found by measuring"`
	Prefetch    Prefetch `yaml:"prefetch" default:"auto" desc:"messages held ready beyond those in flight; auto follows the measured rate, about a tenth of a second's worth"`
	Timeout     Duration `yaml:"timeout" default:"5m" min:"1ms" max:"24h" desc:"how long one attempt may take"`
	MaxBody     Size     `yaml:"max_body" default:"0B" min:"0B" max:"128MiB" desc:"a larger message is rejected unseen; 0B is what the source allows"`
	Retry       Retry    `yaml:"retry" desc:"what follows a failed attempt"`
	Output      Outputs  `yaml:"output" desc:"where what the function returns is sent, before the message is done: one kind, or a list of several outputs, each of which gets it; without, it is dropped"`
}

// Retry is what follows a failed attempt: a delay that doubles from Initial to
// Max, spread by Jitter, until MaxAttempts are used up.
type Retry struct {
	MaxAttempts int      `yaml:"max_attempts" default:"5" min:"1" max:"1000" desc:"attempts before a message goes to the dead letters"`
	Initial     Duration `yaml:"initial" default:"1s" min:"0s" max:"24h" desc:"the delay after the first failure; it doubles with each"`
	Max         Duration `yaml:"max" default:"5m" min:"0s" max:"24h" desc:"the longest delay"`
	Mode        string   `yaml:"mode" default:"hold" enum:"hold,scheduled" desc:"how a delay is kept with Service Bus, which has none itself: hold keeps the message on loan; scheduled sends a copy for later, for queues without sessions and duplicate detection"`
	Jitter      float64  `yaml:"jitter" default:"0.2" min:"0" max:"1" desc:"how much a delay is spread, as a part of it: 0.2 is a fifth up or down"`
}

// Trigger is where messages come from. Exactly one kind is set.
type Trigger struct {
	NATS       *NATSTrigger       `yaml:"nats" desc:"a NATS JetStream consumer"`
	ServiceBus *ServiceBusTrigger `yaml:"servicebus" desc:"an Azure Service Bus queue, or a subscription of a topic"`

	StorageQueue *StorageQueueTrigger `yaml:"storage_queue" desc:"an Azure Storage queue"`
}

// Connection is the name of the connection that the messages come by; empty for none.
func (t Trigger) Connection() string {
	switch {
	case t.NATS != nil:
		return t.NATS.Connection
	case t.ServiceBus != nil:
		return t.ServiceBus.Connection
	case t.StorageQueue != nil:
		return t.StorageQueue.Connection
	}
	return ""
}

// Connections are the names of the connections that a function uses: its trigger's,
// and its outputs'.
func (f Function) Connections() (names []string) {
	if c := f.Trigger.Connection(); c != "" {
		names = append(names, c)
	}
	for _, o := range f.Output {
		names = append(names, o.Connection())
	}
	return names
}

// Connection is the name of the connection that results go by.
func (o Output) Connection() string {
	switch {
	case o.NATS != nil:
		return o.NATS.Connection
	case o.ServiceBus != nil:
		return o.ServiceBus.Connection
	case o.StorageQueue != nil:
		return o.StorageQueue.Connection
	}
	return ""
}

// CancelOnLost reports whether a function is cancelled when its message is lost.
func (t Trigger) CancelOnLost() bool {
	return t.ServiceBus != nil && t.ServiceBus.CancelOnLost || t.StorageQueue != nil && t.StorageQueue.CancelOnLost
}

// ServiceBusTrigger is a queue, or subscriptions of a topic.
type ServiceBusTrigger struct {
	Connection   string  `yaml:"connection" desc:"one of connections, with a connection_string or a namespace; may be left out where there is only one of those"`
	Queue        string  `yaml:"queue" desc:"the queue; by default the function's name, where there is no topic"`
	Topic        string  `yaml:"topic" desc:"the topic, in place of a queue"`
	Subscription Strings `yaml:"subscription" desc:"the topic's subscription, or a list of several; by default the function's name"`
	Create       bool    `yaml:"create" default:"false" desc:"make the queue, or the topic and its subscriptions, where they are missing; needs the right Manage"`

	Sessions     bool     `yaml:"sessions" default:"false" desc:"handle the messages of a session one at a time, in order; for entities that require sessions"`
	MaxSessions  int      `yaml:"max_concurrent_sessions" default:"32" min:"1" max:"1000" desc:"sessions held at once, of each queue or subscription"`
	SessionIdle  Duration `yaml:"session_idle_timeout" default:"5s" min:"100ms" max:"1h" desc:"how long a session without messages is held, where there is room for others"`
	SessionTurn  Duration `yaml:"session_turn" default:"30s" min:"0s" max:"24h" desc:"how long a session with messages is held, where there is no room for others; 0s is without end"`
	SessionState bool     `yaml:"session_state" default:"false" desc:"give a function in a worker process the session's state; one more request for each session"`

	MaxLockRenewal Duration `yaml:"max_lock_renewal" default:"0s" min:"0s" max:"24h" desc:"how long a message's lock is renewed, from its receipt; 0s is for as long as it is worked on"`
	CancelOnLost   bool     `yaml:"cancel_on_lock_lost" default:"false" desc:"cancel the function when the lock of its message is lost, since the message runs again elsewhere"`
	MaxIdle        Duration `yaml:"max_idle" default:"10m" min:"0s" max:"24h" desc:"after how long without a message the receiver is opened anew; 0s is never"`
}

// NATSTrigger is a durable pull consumer of a JetStream stream.
type NATSTrigger struct {
	Connection    string   `yaml:"connection" desc:"one of connections; may be left out where there is only one"`
	Stream        string   `yaml:"stream" desc:"the stream; by default the function's name"`
	Subject       string   `yaml:"subject" desc:"the subject that is consumed; by default the function's name where the stream is made, else all that the consumer has"`
	Consumer      string   `yaml:"consumer" desc:"the durable consumer; by default the function's name"`
	Create        *bool    `yaml:"create" desc:"make the stream and the consumer where they are missing; by default true with the embedded server, false elsewhere"`
	AckWait       Duration `yaml:"ack_wait" default:"30s" min:"100ms" max:"24h" desc:"how long the server waits for a sign of life before it lends the message again; drover gives one every third of it"`
	OrderingToken int      `yaml:"ordering_token" default:"0" min:"0" max:"64" desc:"the subject's token, counted from 1, whose messages are handled one at a time and in order; 0 is no order"`
	DeadLetters   string   `yaml:"dead_letters" desc:"the stream for rejected messages; by default the stream's name with -DEAD"`
}

// StorageQueueTrigger is a queue.
type StorageQueueTrigger struct {
	Connection string `yaml:"connection" desc:"one of connections, with a connection_string or a storage_account; may be left out where there is only one of those"`
	Queue      string `yaml:"queue" desc:"the queue; by default the function's name"`
	Create     bool   `yaml:"create" default:"false" desc:"make the queue where it is missing"`
	Encoding   string `yaml:"encoding" default:"base64" enum:"base64,text,auto" desc:"how bodies are written: base64, as Azure Functions and most SDKs do; text, as they are; auto reads both, and takes a text for base64 that happens to be it"`

	Lease           Duration `yaml:"lease" default:"30s" min:"1s" max:"168h" desc:"how long a message stays hidden when nobody is heard of; it is renewed at half of it, as long as the message is worked on; whole seconds"`
	MaxPollInterval Duration `yaml:"max_poll_interval" default:"10s" min:"100ms" max:"1h" desc:"the longest time between two questions to an empty queue"`
	MaxDequeueCount int      `yaml:"max_dequeue_count" default:"100" min:"0" max:"1000000" desc:"how often a message is handed out, for whatever reason: failures, stops, crashes, also by other instances; then it goes to the poison queue; 0 is without end"`
	PoisonQueue     string   `yaml:"poison_queue" desc:"the queue for rejected messages, which is made where it is missing; by default the queue's name with -poison"`
	PoisonFormat    string   `yaml:"poison_format" default:"body" enum:"body,envelope" desc:"what is in the poison queue: body is the message as it was; envelope is JSON that has the error, the attempts and the body"`
	CancelOnLost    bool     `yaml:"cancel_on_lease_lost" default:"false" desc:"cancel the function when the lease of its message is lost, since the message runs again elsewhere"`
}

// Outputs are where a function's results go: each result to all of them. In a file
// it is a list, or one alone.
type Outputs []Output

// Output is one of those. Exactly one kind is set.
type Output struct {
	NATS       *NATSOutput       `yaml:"nats" desc:"a subject that a stream takes"`
	ServiceBus *ServiceBusOutput `yaml:"servicebus" desc:"an Azure Service Bus queue or topic"`

	StorageQueue *StorageQueueOutput `yaml:"storage_queue" desc:"an Azure Storage queue"`
}

// NATSOutput is a subject.
type NATSOutput struct {
	Connection string `yaml:"connection" desc:"one of connections; may be left out where there is only one to NATS"`
	Subject    string `yaml:"subject" required:"true" desc:"the subject that results are sent to"`
}

// ServiceBusOutput is a queue or a topic. A result keeps the session of its message.
type ServiceBusOutput struct {
	Connection string `yaml:"connection" desc:"one of connections; may be left out where there is only one to Service Bus"`
	Queue      string `yaml:"queue" desc:"the queue"`
	Topic      string `yaml:"topic" desc:"the topic, in place of a queue"`
}

// StorageQueueOutput is a queue.
type StorageQueueOutput struct {
	Connection string   `yaml:"connection" desc:"one of connections; may be left out where there is only one to Azure Storage"`
	Queue      string   `yaml:"queue" required:"true" desc:"the queue"`
	Encoding   string   `yaml:"encoding" default:"base64" enum:"base64,text" desc:"how results are written: base64, as Azure Functions expects it; text, as they are, without control characters"`
	Delay      Duration `yaml:"delay" default:"0s" min:"0s" max:"168h" desc:"how long a result stays hidden; less than time_to_live"`
	TimeToLive Duration `yaml:"time_to_live" default:"168h" min:"0s" max:"87600h" desc:"after how long the service drops a result that nobody took; 0s is never"`
}

// Handler is what runs a function. Exactly one kind is set.
type Handler struct {
	Go     string         `yaml:"go" desc:"the name of a Go function that the program registered"`
	Exec   *ExecHandler   `yaml:"exec" desc:"a command that is run for each message"`
	HTTP   *HTTPHandler   `yaml:"http" desc:"an app that each message is posted to"`
	Python *PythonHandler `yaml:"python" desc:"a Python function in a pool of worker processes"`
	Node   *NodeHandler   `yaml:"node" desc:"a Node.js function in a pool of worker processes"`
	Worker *WorkerHandler `yaml:"worker" desc:"a function in a pool of your own worker processes"`
}

// PythonHandler is a Python function. Either App names an entry of apps, or Path
// makes an app of its own, together with all functions of the same path.
type PythonHandler struct {
	App      string `yaml:"app" desc:"one of apps"`
	Module   string `yaml:"module" desc:"the module to import, such as billing.jobs; by default the file that path names, else function_app"`
	Function string `yaml:"function" desc:"the function in the module; by default the name in this file"`

	Path        string `yaml:"path" desc:"in place of app: the directory of the code, or one file in it; relative to this file"`
	Interpreter string `yaml:"interpreter" desc:"with path: as in apps"`
	Processes   int    `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"with path: as in apps"`
	Threads     int    `yaml:"threads" default:"0" zero:"auto" min:"0" max:"4096" desc:"with path: as in apps"`
	Coroutines  int    `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"with path: as in apps"`
}

// NodeHandler is a Node.js function. Either App names an entry of apps, or Path makes
// an app of its own, together with all functions of the same path.
type NodeHandler struct {
	App      string `yaml:"app" desc:"one of apps"`
	Module   string `yaml:"module" desc:"the file, relative to the app, with or without its ending, CommonJS or ES; or the name of a package; by default the file that path names, else what the app's package.json has as main, else index.js"`
	Function string `yaml:"function" desc:"the export, which may be default; by default the name in this file"`

	Path        string `yaml:"path" desc:"in place of app: the directory of the code, or one file in it; relative to this file"`
	Interpreter string `yaml:"interpreter" desc:"with path: as in apps"`
	Processes   int    `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"with path: as in apps"`
	Coroutines  int    `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"with path: as in apps"`
}

// WorkerHandler is a function of a worker that somebody else wrote, in any language.
// Either App names an entry of apps that has a command, or Path and Command make an
// app of their own, together with all functions of the same path.
type WorkerHandler struct {
	App      string `yaml:"app" desc:"one of apps"`
	Module   string `yaml:"module" desc:"what the worker is told beside function; it may do without"`
	Function string `yaml:"function" desc:"the function; by default the name in this file"`

	Path       string  `yaml:"path" desc:"in place of app: the directory that the command runs in; relative to this file"`
	Command    Strings `yaml:"command" desc:"with path: as in apps"`
	Processes  int     `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"with path: as in apps"`
	Threads    int     `yaml:"threads" default:"0" zero:"auto" min:"0" max:"4096" desc:"with path: as in apps"`
	Coroutines int     `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"with path: as in apps"`
}

// ExecHandler is a command. Its exit status is the verdict: 0 done, 65 reject, else
// a failed attempt.
type ExecHandler struct {
	Command   Strings `yaml:"command" required:"true" desc:"the program and its arguments, which no shell reads; the body is on its standard input, its standard output is the function's output"`
	Dir       string  `yaml:"dir" desc:"the directory that it runs in; relative to this file, which is in the default"`
	MaxOutput Size    `yaml:"max_output" default:"1MiB" min:"1B" max:"128MiB" desc:"a longer output is a failed attempt"`

	Environment Environment `yaml:"environment" desc:"what of the daemon's environment the command gets"`
}

// HTTPHandler is an app that messages are posted to. What its answers mean is in
// docs/http.md.
type HTTPHandler struct {
	URL         string            `yaml:"url" required:"true" desc:"where each message is posted: http://127.0.0.1:8080/orders, https://..., or unix:/run/app.sock:/orders"`
	Ready       string            `yaml:"ready" desc:"a URL that answers 2xx when the app is ready; nothing is received before; by default when it can be reached"`
	CloudEvents string            `yaml:"cloudevents" default:"binary" enum:"binary,structured,off" desc:"how a message becomes a request: binary is the body as it is, with headers; structured is JSON; off is the body alone"`
	Format      string            `yaml:"format" enum:"azure" desc:"in place of cloudevents: azure is the contract of a custom handler of Azure Functions"`
	Binding     string            `yaml:"binding" desc:"format azure: the name of the trigger's binding in function.json"`
	DataType    string            `yaml:"data_type" default:"string" enum:"string,binary" desc:"format azure: the trigger's dataType in function.json; binary sends the body in base64"`
	Result      string            `yaml:"result" desc:"format azure: the output binding whose value is the function's output, $return for the ReturnValue; by default the ReturnValue, else the outputs"`
	Batch       *HTTPBatch        `yaml:"batch" desc:"post messages that are in flight together in one request, with a result for each in the answer"`
	Headers     map[string]Secret `yaml:"headers" desc:"headers that are added to each request; such as Authorization, usually ${NAME} or file:PATH"`
	Status      map[string]string `yaml:"status" desc:"what an answer means, in place of the defaults, by its status or its class: 404: reject, 5xx: retry; done, retry, reject or pause"`
	MaxResponse Size              `yaml:"max_response" default:"1MiB" min:"1B" max:"128MiB" desc:"a longer answer is a failed attempt"`
	HTTP2       bool              `yaml:"http2" default:"false" desc:"speak HTTP/2 without TLS"`
	TLS         *TLS              `yaml:"tls" desc:"https: how the connection is encrypted; without, the machine's roots are used"`
}

// HTTPBatch is how messages share a request.
type HTTPBatch struct {
	Max      int      `yaml:"max" default:"100" min:"1" max:"10000" desc:"messages of one request"`
	MaxBytes Size     `yaml:"max_bytes" default:"4MiB" min:"1KiB" max:"128MiB" desc:"the body of one request; a larger message goes alone"`
	Wait     Duration `yaml:"wait" default:"20ms" min:"0s" max:"1m" desc:"how long the first message of a request waits for more; where no more can come, it does not"`
	Format   string   `yaml:"format" default:"json" enum:"json,multipart" desc:"json is an array of CloudEvents, or of objects where cloudevents is off; multipart has a part for each message, as its own request would be"`
}

// Duration is a time.Duration written as 1m30s.
type Duration time.Duration

// Size is a number of bytes written as 512KiB or 1MiB (or kB, MB: powers of 1000).
type Size int64

// Secret is a text that is never printed: its String and its JSON are ***.
type Secret string

// Strings is a list, or one text alone.
type Strings []string

// Prefetch is a number, or auto, which is -1.
type Prefetch int

// PrefetchAuto follows the measured rate.
const PrefetchAuto Prefetch = -1
