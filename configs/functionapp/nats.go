package functionapp

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/drover-run/drover/configs"
)

// This file translates NATS, which Azure has no decorator for: a function app uses
// generic_trigger(type="natsTrigger", ...) and generic_output_binding(type="nats", ...).

var streamKinds = []kind{
	{name: "natsTrigger", translate: natsTrigger},
	{name: "nats", out: true, output: func(t *Translation, f *Function, b Binding) configs.Output {
		return configs.Output{NATS: &configs.NATSOutput{Connection: t.connection(*f, b, &natsServers), Subject: t.name(*f, b, "subject")}}
	}},
}

// natsServers is the service of NATS servers. A setting has their URLs; others, with __ and a name
// behind it, have what a client needs to log in.
var natsServers = service{
	name: "NATS", usual: "AzureWebJobsNats", identity: []string{"servers"},
	read: readServers,
	use: func(c *configs.Connection, _, value string) (err error) {
		*c, err = readServers(value)
		return err
	},
	more: map[string]func(c *configs.Connection, value string){
		"user":        func(c *configs.Connection, value string) { c.User = value },
		"password":    func(c *configs.Connection, value string) { c.Password = configs.Secret(value) },
		"token":       func(c *configs.Connection, value string) { c.Token = configs.Secret(value) },
		"nkey":        func(c *configs.Connection, value string) { c.NKey = configs.Secret(value) },
		"credentials": func(c *configs.Connection, value string) { c.Credentials = configs.Secret(value) },
	},
	fits: func(c configs.Connection) bool { return len(c.NATS) > 0 },
}

// readServers reads URLs, separated by commas, or the word embedded. Credentials in a URL become
// settings of their own, so that they are not printed.
func readServers(text string) (c configs.Connection, err error) {
	for _, one := range strings.Split(text, ",") {
		one = strings.TrimSpace(one)
		u, err := url.Parse(one)
		if err != nil || one != "embedded" && u.Host == "" {
			return c, errors.New("has no URL of a server; write nats://HOST:4222, several with commas, or embedded") // without the value: it may contain a secret
		}
		if u.User != nil {
			if password, given := u.User.Password(); given {
				c.User, c.Password = u.User.Username(), configs.Secret(password)
			} else {
				c.Token = configs.Secret(u.User.Username())
			}
			u.User = nil
			one = u.String()
		}
		c.NATS = append(c.NATS, one)
	}
	return c, nil
}

// natsTrigger translates a consumer of a stream. The fields of the binding are the keys of the
// trigger in a configuration, in camelCase or with underscores.
func natsTrigger(t *Translation, f *Function, b Binding, to *configs.Function) {
	own := withDefaults[configs.NATSTrigger]()
	own.Connection = t.connection(*f, b, &natsServers)
	for _, field := range []struct {
		name string
		to   *string
	}{{"subject", &own.Subject}, {"stream", &own.Stream}, {"consumer", &own.Consumer}, {"deadLetters", &own.DeadLetters}} {
		if b.text(field.name) != "" {
			*field.to = t.name(*f, b, field.name)
		}
	}
	if text := b.text("create"); text != "" {
		create := strings.EqualFold(text, "true")
		own.Create = &create
	}
	if text := b.text("orderingToken"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 64 {
			t.wrongBinding(*f, b, "orderingToken of %s (%s) is %q; write the number of a token of the subject, from 1 to 64", b.Type, b.Name, text)
		}
		own.OrderingToken = n
	}
	to.Trigger.NATS = &own
	stream := own.Stream
	if stream == "" {
		stream = f.Name
	}
	f.trigger = fmt.Sprintf("stream %s of NATS on %s", stream, own.Connection)
	if own.Subject != "" {
		f.trigger += ", subject " + own.Subject
	}
}

// anyTrigger returns a trigger that needs no setting, for a configuration whose functions do not
// run.
func anyTrigger() configs.Trigger {
	nats := withDefaults[configs.NATSTrigger]()
	return configs.Trigger{NATS: &nats}
}
