package configs

import (
	"regexp"
	"strings"
)

// streamName is what NATS allows as the name of a stream or consumer, and what
// does as a directory's.
var streamName = regexp.MustCompile(`^[^\s.*>/\\\x00-\x1f\x7f]{1,255}$`)

func (x *completion) natsTrigger(path, name string, t *NATSTrigger) {
	connection, found := x.connectionOf(path, &t.Connection, "NATS", func(c Connection) bool { return len(c.NATS) > 0 })
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
			x.wrong(path+"."+key.name, "%q cannot be the name of a stream or consumer: no spaces, dots, slashes, * or >", key.value)
		}
	}
	if t.DeadLetters == t.Stream {
		x.wrong(path+".dead_letters", "it is the stream itself; rejected messages would be received again")
	}
	if t.Subject != "" && !validSubject(t.Subject) {
		x.wrong(path+".subject", "%q is not a subject; use tokens separated by dots, * for a token, > for the rest", t.Subject)
	}
	for _, other := range names(x.Functions) {
		o := x.Functions[other].Trigger.NATS
		if other >= name || o == nil {
			continue
		}
		if o.Connection == t.Connection && o.Stream == t.Stream && o.Consumer == t.Consumer {
			x.wrong(path, "function %s reads the same consumer, %s of stream %s: each would receive only some of the messages; use separate consumers", other, t.Consumer, t.Stream)
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
