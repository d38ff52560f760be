package functionapp

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Binding is one binding of a function, as its decorator or function.json defines it.
type Binding struct {
	Type, Name string
	Out        bool
	// Raw is the whole definition.
	Raw json.RawMessage
	// File and Line are the place of the definition; Line 0 is unknown.
	File string
	Line int

	fields map[string]any
}

// newBinding reads a binding.
func newBinding(raw json.RawMessage, file string, line int) (b Binding, err error) {
	b = Binding{Raw: raw, File: file, Line: line}
	if err := json.Unmarshal(raw, &b.fields); err != nil {
		return b, err
	}
	b.Type, b.Name, b.Out = b.text("type"), b.text("name"), strings.EqualFold(b.text("direction"), "out")
	return b, nil
}

// text returns a field; "" if it is missing. A name matches in any case, as on Azure.
func (b Binding) text(field string) string {
	switch value := b.value(field).(type) {
	case nil:
		return ""
	case string:
		return value
	default:
		return fmt.Sprint(value)
	}
}

func (b Binding) value(field string) any {
	if value, found := b.fields[field]; found {
		return value
	}
	for name, value := range b.fields {
		if strings.EqualFold(name, field) || strings.EqualFold(strings.ReplaceAll(name, "_", ""), field) {
			return value
		}
	}
	return nil
}

// words returns a field that is a list of texts, or one text.
func (b Binding) words(field string) (out []string) {
	switch value := b.value(field).(type) {
	case string:
		return []string{value}
	case []any:
		for _, one := range value {
			out = append(out, fmt.Sprint(one))
		}
	}
	return out
}

// holds reports whether a field is true.
func (b Binding) holds(field string) bool { return strings.EqualFold(b.text(field), "true") }

// trigger reports whether the binding is a function's trigger.
func (b Binding) trigger() bool { return strings.HasSuffix(strings.ToLower(b.Type), "trigger") }

// instead returns what to do instead of a binding that drover does not have.
func (b Binding) instead() string {
	kind := strings.ToLower(b.Type)
	for _, known := range alternatives {
		if kind == strings.ToLower(known.kind) {
			return known.text
		}
	}
	for _, known := range alternativePrefixes {
		if strings.HasPrefix(kind, known.kind) {
			return known.text
		}
	}
	if b.trigger() {
		return "have its events put into a storage queue or a Service Bus queue, and use that trigger"
	}
	return "call the service with its SDK in the function"
}

// alternative is what takes the place of a type of binding.
type alternative struct{ kind, text string }

const (
	byEventGrid = "subscribe a storage queue or a Service Bus queue to the events, by Event Grid, and use that queue's trigger"
	durable     = "drover has no orchestrations: chain the steps by queues"
	languages   = "call the model with its SDK in the function"
)

// alternatives has what takes the place of bindings that drover does not have.
var alternatives = []alternative{
	{"blobTrigger", byEventGrid},
	{"blob", "read and write blobs with azure-storage-blob in the function"},
	{"eventGridTrigger", byEventGrid},
	{"eventGrid", "publish events with azure-eventgrid in the function"},
	{"eventHubTrigger", "receive events with azure-eventhub in a separate program, which puts them into a queue; or use a Service Bus queue"},
	{"eventHub", "send events with azure-eventhub in the function"},
	{"cosmosDBTrigger", "read the change feed with azure-cosmos in a function with a timer"},
	{"cosmosDB", "read and write documents with azure-cosmos in the function"},
	{"table", "read and write entities with azure-data-tables in the function"},
	{"kafkaTrigger", "copy the topic to a Service Bus queue with Kafka Connect, and use serviceBusTrigger"},
	{"kafka", "produce messages with confluent-kafka in the function"},
	{"rabbitMQTrigger", "move the messages to a Service Bus queue, a storage queue or NATS"},
	{"rabbitMQ", "publish messages with pika in the function"},
	{"sqlTrigger", "poll the table in a function with a timer"},
	{"sql", "query the database with pyodbc in the function"},
	{"mysqlTrigger", "poll the table in a function with a timer"},
	{"mysql", "query the database with mysql-connector-python in the function"},
	{"signalR", "call the REST API of SignalR Service in the function"},
	{"signalRConnectionInfo", "sign the token in the function, with PyJWT"},
	{"sendGrid", "send mail with sendgrid in the function"},
	{"twilioSms", "send texts with twilio in the function"},
	{"warmupTrigger", "do the work at the top of the module: drover loads it before the first message"},
	{"orchestrationTrigger", durable},
	{"activityTrigger", durable},
	{"entityTrigger", durable},
	{"durableClient", durable},
	{"assistantSkillTrigger", languages},
	{"textCompletion", languages},
	{"embeddings", languages},
	{"embeddingsStore", languages},
	{"semanticSearch", languages},
	{"queue", "a storage queue can be a trigger or an output, and not an input"},
	{"serviceBus", "Service Bus can be a trigger or an output, and not an input"},
}

var alternativePrefixes = []alternative{
	{"dapr", "call the Dapr sidecar by HTTP in the function, or use drover's own queues"},
	{"mcp", "drover is no MCP server: write one with the package mcp"},
	{"assistant", languages},
}
