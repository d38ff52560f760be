package configs

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/servers"
)

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

// NATSOutput is a subject.
type NATSOutput struct {
	Connection string `yaml:"connection" desc:"one of connections; optional if there is only one to NATS"`
	Subject    string `yaml:"subject" required:"true" desc:"subject for the results"`
}

// streamName matches the names that NATS allows for a stream or consumer, and that work as the name
// of a directory.
var streamName = regexp.MustCompile(`^[^\s.*>/\\\x00-\x1f\x7f]{1,255}$`)

// embeddedServer returns a connection to the server in this process.
func embeddedServer() Connection { return Connection{NATS: Strings{"embedded"}} }

// Embedded reports whether the connection is to the server in this process.
func (c Connection) Embedded() bool { return len(c.NATS) == 1 && c.NATS[0] == "embedded" }

// hasServers reports whether the connection is to NATS.
func (c Connection) hasServers() bool { return len(c.NATS) > 0 }

func (t *NATSTrigger) connectionName() string { return t.Connection }

func (t *NATSTrigger) describeTrigger() string {
	text := fmt.Sprintf("consumer %s of stream %s on %s", t.Consumer, t.Stream, t.Connection)
	if t.Subject != "" {
		text += ", subject " + t.Subject
	}
	if t.Create != nil && *t.Create {
		text += ", created if missing"
	}
	if t.OrderingToken > 0 {
		text += fmt.Sprintf(", in order by token %d", t.OrderingToken)
	}
	return text + ", dead letters to " + t.DeadLetters
}

func (t *NATSTrigger) completeTrigger(x *completion, path, name string, _ Retry) {
	path += ".nats"
	connection, found := x.connectionOf(path, &t.Connection, "NATS", Connection.hasServers)
	if !found {
		return
	}
	if t.Create == nil {
		create := connection.Embedded()
		t.Create = &create
	}
	def := func(v *string, value string) {
		if *v == "" {
			*v = value
		}
	}
	def(&t.Stream, name)
	def(&t.Consumer, name)
	def(&t.DeadLetters, t.Stream+"-DEAD")
	if *t.Create {
		def(&t.Subject, name)
	}
	for _, key := range []struct{ name, value string }{{"stream", t.Stream}, {"consumer", t.Consumer}, {"dead_letters", t.DeadLetters}} {
		if !streamName.MatchString(key.value) {
			x.Wrong(path+"."+key.name, "%q cannot be the name of a stream or consumer: no spaces, dots, slashes, * or >", key.value)
		}
	}
	if t.DeadLetters == t.Stream {
		x.Wrong(path+".dead_letters", "it is the stream itself; rejected messages would be received again")
	}
	if t.Subject != "" && !validSubject(t.Subject) {
		x.Wrong(path+".subject", "%q is not a subject; use tokens separated by dots, * for a token, > for the rest", t.Subject)
	}
	for _, other := range sortedNames(x.Functions) {
		o := x.Functions[other].Trigger.NATS
		if other >= name || o == nil {
			continue
		}
		if o.Connection == t.Connection && o.Stream == t.Stream && o.Consumer == t.Consumer {
			x.Wrong(path, "function %s reads the same consumer, %s of stream %s: each would receive only some of the messages; use separate consumers", other, t.Consumer, t.Stream)
		}
	}
}

func validSubject(subject string) bool {
	tokens := strings.Split(subject, ".")
	for i, t := range tokens {
		if t == "" || strings.ContainsAny(t, " \t\r\n") || t == ">" && i < len(tokens)-1 {
			return false
		}
	}
	return true
}

func (o *NATSOutput) connectionName() string { return o.Connection }

func (o *NATSOutput) describeOutput() string {
	return fmt.Sprintf("subject %s on %s", o.Subject, o.Connection)
}

func (o *NATSOutput) completeOutput(x *completion, path string) {
	x.connectionOf(path+".nats", &o.Connection, "NATS", Connection.hasServers)
	if !validSubject(o.Subject) || strings.ContainsAny(o.Subject, "*>") {
		x.Wrong(path+".nats.subject", "%q is not a subject for results; use tokens separated by dots, without * and >", o.Subject)
	}
}

// checkOrderingTokens rejects several instances for functions with an ordering token.
func (x *completion) checkOrderingTokens() {
	for _, name := range sortedNames(x.Functions) {
		if n := x.Functions[name].Trigger.NATS; n != nil && n.OrderingToken > 0 {
			x.Wrong("functions."+name+".trigger.nats.ordering_token", "several instances do not keep the order of a subject; set scale.instances.max to 1, or ordering_token to 0")
		}
	}
}

func (c Connection) describeServers() string {
	if c.Embedded() {
		return fmt.Sprintf("the embedded NATS server, listen %s, sync %v", c.Listen, c.Sync)
	}
	text := "NATS at " + strings.Join(c.NATS, ", ")
	for _, way := range []struct {
		with string
		set  bool
	}{
		{"credentials", c.Credentials != ""}, {"an nkey", c.NKey != ""}, {"a token", c.Token != ""},
		{"user " + c.User, c.User != ""}, {"own TLS settings", c.TLS != nil},
	} {
		if way.set {
			text += ", with " + way.with
		}
	}
	return text
}

// checkServers checks a connection to NATS.
func (c Connection) checkServers(x *problems.Source, path string) {
	onlyFor(x, path, "namespace and storage_account", identityOnly)
	var ways []string
	for _, way := range []struct {
		key string
		set bool
	}{{"credentials", c.Credentials != ""}, {"nkey", c.NKey != ""}, {"token", c.Token != ""}, {"user", c.User != ""}} {
		if way.set {
			ways = append(ways, way.key)
		}
	}
	if c.Embedded() {
		if len(ways) > 0 || c.Password != "" || c.TLS != nil {
			x.Wrong(path, "the embedded server has no credentials, nkey, token, user, password or tls; remove them")
		}
		servers.CheckEmbedded(x, path+".listen", c.Listen)
		return
	}
	if len(ways) > 1 {
		x.Wrong(path, "it has %s; keep one way to authenticate", strings.Join(ways, " and "))
	}
	if c.Password != "" && c.User == "" {
		x.Wrong(path+".password", "it needs a user")
	}
	if c.TLS != nil && (c.TLS.Cert == "") != (c.TLS.Key == "") {
		x.Wrong(path+".tls", "set both cert and key")
	}
	for _, key := range []string{"listen", "sync", "max_store"} {
		if x.Given(path + "." + key) {
			x.Wrong(path+"."+key, "this key is only for the embedded server; remove it")
		}
	}
	for i, u := range c.NATS {
		at := path + ".nats"
		if len(c.NATS) > 1 {
			at = fmt.Sprintf("%s.nats[%d]", path, i)
		}
		parsed, err := url.Parse(u)
		switch {
		case u == "embedded":
			x.Wrong(at, "embedded stands alone, without URLs beside it")
		case err != nil, parsed.Host == "":
			x.Wrong(at, "this is neither embedded nor a URL; write it as nats://host:4222")
		case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, parsed.Scheme):
			x.Wrong(at, "unsupported scheme %s://; use nats, tls, ws or wss", parsed.Scheme)
		case parsed.User != nil:
			x.Secrets = append(x.Secrets, parsed.User.String())
			x.Wrong(at, "a URL must not contain a user or password, since URLs are printed; use the keys user, password or token")
		}
	}
}
