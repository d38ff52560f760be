// Package hostkeys has the keys of host.json: what drover does with each, and which values it allows.
// Its functions are pure.
package hostkeys

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/configs/problems"
)

// Use is what drover does with a key of host.json.
type Use string

// The uses of a key.
const (
	Honored  Use = "honored"    // it has the effect that it has on Azure
	Ignored  Use = "ignored"    // it has no effect; Key.How has the reason
	NotInUse Use = "not in use" // it is for a trigger that drover does not run
)

// Key is a key of host.json.
type Key struct {
	// Name is the path, with dots. A * at the end stands for all keys below it.
	Name string
	Use  Use
	// How is the key's effect in drover, or its replacement.
	How string

	form func(text string) error // nil for any
}

const (
	byDrover   = "drover measures how many calls run at once (docs/tuning.md); set concurrency in drover.yaml for a fixed number"
	byTraces   = "drover exports traces and metrics itself (docs/traces.md)"
	otherEvent = "drover does not run this trigger"
	ownRetries = "it is about requests between the host and Service Bus, and not about a failed function: for that use @app.retry, or retry in drover.yaml"
)

// Keys returns all keys of host.json that the host's documentation has, in the order of their
// names. docs/azure-functions.md has the same table.
func Keys() []Key {
	level := words("Trace", "Debug", "Information", "Warning", "Error", "Critical", "None")
	keys := []Key{
		{"version", Honored, "it must be 2.0", version},
		{"functionTimeout", Honored, "timeout of each function; -1 is 24 hours, the longest time that drover allows; without it 30 minutes, as on a plan other than Consumption", timeout},
		{"functions.*", Honored, "only the functions in this list run", nil},
		{"retry.strategy", Honored, "retry of each function that has no @app.retry of its own, also for queues and Service Bus: fixedDelay or exponentialBackoff", strategy},
		{"retry.maxRetryCount", Honored, "retry.max_attempts is one more; -1 is 1000, the most that drover allows", whole(-1, 1<<31-1)},
		{"retry.delayInterval", Honored, "fixedDelay: the delay of each retry", span(0, 0)},
		{"retry.minimumInterval", Honored, "exponentialBackoff: the first delay", span(0, 0)},
		{"retry.maximumInterval", Honored, "exponentialBackoff: the longest delay", span(0, 0)},

		{"extensions.queues.batchSize", Honored, "with newBatchThreshold: concurrency of each function with a queueTrigger. Without both, " + byDrover, whole(1, 32)},
		{"extensions.queues.newBatchThreshold", Honored, "concurrency is batchSize + newBatchThreshold; by default half of batchSize for each core", whole(0, 1000)},
		{"extensions.queues.maxDequeueCount", Honored, "retry.max_attempts of each function with a queueTrigger (default 5), unless it has @app.retry", whole(1, 1000)},
		{"extensions.queues.visibilityTimeout", Honored, "delay before a retry (default none), unless the function has @app.retry; not the lease of a message in flight, which drover renews", span(0, 24*time.Hour)},
		{"extensions.queues.maxPollingInterval", Honored, "max_poll_interval of the trigger (default 1 minute)", span(100*time.Millisecond, time.Hour)},
		{"extensions.queues.messageEncoding", Honored, "base64, or none for plain text; of triggers and outputs", words("base64", "none")},

		{"extensions.serviceBus.maxConcurrentCalls", Honored, "concurrency of each function with a serviceBusTrigger without sessions. Without it, " + byDrover, whole(1, 1_000_000)},
		{"extensions.serviceBus.maxConcurrentSessions", Honored, "max_concurrent_sessions of the trigger (default 8)", whole(1, 1000)},
		{"extensions.serviceBus.sessionIdleTimeout", Honored, "session_idle_timeout of the trigger (default 1 minute)", span(100*time.Millisecond, time.Hour)},
		{"extensions.serviceBus.maxAutoLockRenewalDuration", Honored, "max_lock_renewal of the trigger; without it a lock is renewed as long as the message is in flight", span(-time.Millisecond, 24*time.Hour)},
		{"extensions.serviceBus.maxConcurrentCallsPerSession", Ignored, "drover handles the messages of a session one at a time, in order", nil},
		{"extensions.serviceBus.prefetchCount", Ignored, "drover prefetches what the function handles in a tenth of a second; set prefetch in drover.yaml for a fixed number", nil},
		{"extensions.serviceBus.maxMessageBatchSize", Honored, "batch.size of each function with cardinality many (default 1000)", whole(1, 4096)},
		{"extensions.serviceBus.minMessageBatchSize", Honored, "batch.min of these functions, for at most maxBatchWaitTime (default 1: a call takes the messages that have arrived)", whole(1, 4096)},
		{"extensions.serviceBus.maxBatchWaitTime", Honored, "batch.window of these functions if minMessageBatchSize is more than 1 (default 30 seconds)", span(time.Millisecond, time.Hour)},
		{"extensions.serviceBus.autoCompleteMessages", Ignored, "drover completes a message after the function and its outputs succeeded", nil},
		{"extensions.serviceBus.clientRetryOptions.*", Ignored, ownRetries, nil},
		{"extensions.serviceBus.transportType", Ignored, "drover connects by AMQP over TCP, port 5671", nil},
		{"extensions.serviceBus.webProxy", Ignored, "drover connects without a proxy", nil},
		{"extensions.serviceBus.enableCrossEntityTransactions", Ignored, "drover uses no transactions; outputs are sent before the message is completed", nil},

		{"extensions.http.routePrefix", Honored, "http.prefix (default api)", nil},
		{"extensions.http.maxOutstandingRequests", Honored, "http.max_requests: more requests at once are answered with 429 (default 2000); -1 is 1,000,000, the most that drover allows", whole(-1, 1<<31-1)},
		{"extensions.http.maxConcurrentRequests", Honored, "concurrency of each HTTP function; -1 is the default. Without it, " + byDrover, whole(-1, 1<<31-1)},
		{"extensions.http.dynamicThrottlesEnabled", Ignored, "drover refuses requests by max_requests and by memory", nil},
		{"extensions.http.customHeaders.*", Honored, "http.headers: added to each response that does not have them", nil},
		{"extensions.http.hsts.*", Ignored, "drover serves no TLS; the proxy that does sets this header", nil},
		{"extensions.http.enableHttpStreaming", Ignored, "any response can be sent in parts", nil},

		{"extensions.blobs.*", NotInUse, otherEvent, nil},
		{"extensions.cosmosDB.*", NotInUse, otherEvent, nil},
		{"extensions.dapr.*", NotInUse, otherEvent, nil},
		{"extensions.durableTask.*", NotInUse, otherEvent, nil},
		{"extensions.eventHubs.*", NotInUse, otherEvent, nil},
		{"extensions.kafka.*", NotInUse, otherEvent, nil},
		{"extensions.mcp.*", NotInUse, otherEvent, nil},
		{"extensions.openai.*", NotInUse, otherEvent, nil},
		{"extensions.rabbitMQ.*", NotInUse, otherEvent, nil},
		{"extensions.sendGrid.*", NotInUse, otherEvent, nil},
		{"extensions.signalR.*", NotInUse, otherEvent, nil},
		{"extensions.sql.*", NotInUse, otherEvent, nil},
		{"extensions.mysql.*", NotInUse, otherEvent, nil},
		{"extensions.tables.*", NotInUse, otherEvent, nil},
		{"extensions.warmup.*", NotInUse, otherEvent, nil},

		{"concurrency.dynamicConcurrencyEnabled", Honored, "true ignores batchSize, newBatchThreshold and maxConcurrentCalls, as on Azure: " + byDrover, words("true", "false")},
		{"concurrency.snapshotPersistenceEnabled", Ignored, "drover keeps what it measured in data_dir", nil},
		{"concurrency.*", Ignored, byDrover, nil},
		{"logging.logLevel.default", Honored, "log.level: Trace and Debug are debug, Information is info, Warning is warn, and all others error", level},
		{"logging.logLevel.Function", Honored, "log_level of each function", level},
		{"logging.logLevel.Function.*", Honored, "Function.NAME, or Function.NAME.User: log_level of one function", level},
		{"logging.logLevel.*", Ignored, "drover has levels for functions, and one for all other lines", nil},
		{"logging.applicationInsights.*", Ignored, byTraces, nil},
		{"logging.*", Ignored, "drover logs to standard error; log in drover.yaml sets the format", nil},
		{"telemetryMode", Ignored, byTraces, nil},
		{"aggregator.*", Ignored, byTraces, nil},
		{"applicationInsights.*", Ignored, byTraces, nil},
		{"tracing.*", Ignored, byTraces, nil},
		{"customHandler.description.defaultExecutablePath", Honored, "the program of the custom handler: a file of the app, or a program in PATH", nil},
		{"customHandler.description.workingDirectory", Honored, "its working directory, relative to the app; by default the app", nil},
		{"customHandler.description.workerDirectory", Honored, "the directory of the program, relative to the app; by default the app", nil},
		{"customHandler.description.arguments.*", Honored, "its arguments; %NAME% is a variable of its environment", nil},
		{"customHandler.description.arguments", Honored, "the same, as a JSON list in one setting", nil},
		{"customHandler.description.defaultWorkerPath", Honored, "an argument after those", nil},
		{"customHandler.description.workerArguments.*", Honored, "arguments after that", nil},
		{"customHandler.description.workerArguments", Honored, "the same, as a JSON list in one setting", nil},
		{"customHandler.port", Honored, "the port on which it listens; without it a free one", whole(1, 65535)},
		{"customHandler.enableForwardingHttpRequest", Honored, "true: a function with an httpTrigger and no output but the response gets the request itself, at its path", words("true", "false")},
		{"customHandler.http.*", Ignored, "routes come from function.json files only", nil},
		{"customHandler.*", Ignored, "drover has no use for it", nil},
		{"httpWorker.*", Ignored, "it is the older form of customHandler; rename it, and put its keys into customHandler.description", nil},
		{"extensionBundle.*", Ignored, "drover needs no extensions: it has its triggers built in", nil},
		{"healthMonitor.*", Ignored, "drover restarts workers that fail, and has its own health checks", nil},
		{"managedDependency.*", Ignored, "it is for PowerShell", nil},
		{"singleton.*", Ignored, "drover takes no locks in blobs", nil},
		{"watchDirectories.*", Ignored, "use drover reload, or drover run --watch to reload at each save", nil},
		{"watchFiles.*", Ignored, "use drover reload, or drover run --watch to reload at each save", nil},
	}
	return keys
}

// CheckValue returns why a value of the key is not allowed.
func (k Key) CheckValue(text string) error {
	if k.form == nil {
		return nil
	}
	return k.form(text)
}

// FindKey returns the key of a path with colons. A longer name wins over a shorter one with a *.
func FindKey(path string) (best Key, found bool) {
	dotted := strings.ReplaceAll(path, ":", ".")
	for _, k := range Keys() {
		group, isGroup := strings.CutSuffix(k.Name, "*")
		if strings.EqualFold(k.Name, dotted) {
			return k, true
		}
		if isGroup && len(dotted) >= len(group) && strings.EqualFold(dotted[:len(group)], group) && len(k.Name) > len(best.Name) {
			best, found = k, true
		}
	}
	return best, found
}

// DescribeUnknown describes a key that host.json does not have.
func DescribeUnknown(path string) string {
	dotted := strings.ReplaceAll(path, ":", ".")
	var names []string
	for _, k := range Keys() {
		names = append(names, strings.TrimSuffix(k.Name, ".*"))
	}
	first, _, _ := strings.Cut(dotted, ".")
	if slices.Contains([]string{"queues", "serviceBus", "http", "eventHub"}, first) {
		return fmt.Sprintf("%s is a key of version 1 of host.json; write extensions.%s", dotted, dotted)
	}
	if near := problems.Nearest(dotted, names); near != "" {
		return fmt.Sprintf("host.json has no key %s; did you mean %s?", dotted, near)
	}
	return fmt.Sprintf("host.json has no key %s; it has no effect", dotted)
}

func version(text string) error {
	if text != "2.0" {
		return fmt.Errorf("%q is not a version that drover reads; write \"2.0\"", text)
	}
	return nil
}

func timeout(text string) error {
	if text == "-1" {
		return nil
	}
	return span(time.Second, 0)(text)
}

func strategy(text string) error { return words("fixedDelay", "exponentialBackoff")(text) }

// words allows some words, in any case.
func words(allowed ...string) func(string) error {
	return func(text string) error {
		if !slices.ContainsFunc(allowed, func(word string) bool { return strings.EqualFold(word, text) }) {
			return fmt.Errorf("%q is not allowed; write one of: %s", text, strings.Join(allowed, ", "))
		}
		return nil
	}
}

// whole allows whole numbers within bounds.
func whole(least, most int) func(string) error {
	return func(text string) error {
		var n int
		if _, err := fmt.Sscanf(text+" ", "%d ", &n); err != nil || fmt.Sprint(n) != text {
			return fmt.Errorf("%q is not a whole number", text)
		}
		if n < least || n > most {
			return fmt.Errorf("%d is out of bounds: %d to %d", n, least, most)
		}
		return nil
	}
}

// span allows time spans within bounds; a most of 0 is no bound.
func span(least, most time.Duration) func(string) error {
	return func(text string) error {
		d, err := ParseSpan(text)
		if err == nil && (d < least || most > 0 && d > most) {
			err = fmt.Errorf("%s is out of bounds: at least %v", text, least)
			if most > 0 {
				err = fmt.Errorf("%w, at most %v", err, most)
			}
		}
		return err
	}
}

var spanForm = regexp.MustCompile(`^(-)?(?:(\d{1,8})\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,7}))?)?$`)

// ParseSpan reads a time span of .NET: [d.]hh:mm[:ss[.fffffff]], or a number of days.
func ParseSpan(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	if days, err := strconv.Atoi(text); err == nil && days >= 0 && days < 100_000 {
		return time.Duration(days) * 24 * time.Hour, nil
	}
	m := spanForm.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is not a time span; write hh:mm:ss, such as 00:00:30", text)
	}
	var n [4]int64 // days, hours, minutes, seconds
	for i := range n {
		n[i], _ = strconv.ParseInt("0"+m[i+2], 10, 64)
	}
	if n[1] > 23 || n[2] > 59 || n[3] > 59 || n[0] > 100_000 {
		return 0, fmt.Errorf("%q is not a time span: hours are at most 23, minutes and seconds 59; days go before a dot, as in 1.00:00:00", text)
	}
	fraction, _ := strconv.ParseFloat("0."+m[6]+"0", 64)
	span := time.Duration(n[0])*24*time.Hour + time.Duration(n[1])*time.Hour + time.Duration(n[2])*time.Minute + time.Duration(n[3])*time.Second
	span += time.Duration(math.Round(fraction*1e7)) * 100
	if m[1] != "" {
		span = -span
	}
	return span, nil
}
