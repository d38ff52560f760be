package functionapp

import (
	"reflect"
	"strings"
	"testing"

	"github.com/drover-run/drover/configs"
)

func TestNATSConnections(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		variables []string
		want      configs.Connection
		err       string
	}{
		{"Nats", []string{"Nats=nats://a:4222, tls://b:4222"}, configs.Connection{NATS: configs.Strings{"nats://a:4222", "tls://b:4222"}}, ""},
		{"Nats", []string{"Nats=embedded"}, configs.Connection{NATS: configs.Strings{"embedded"}}, ""},
		{"", []string{"AzureWebJobsNats=nats://a:4222"}, configs.Connection{NATS: configs.Strings{"nats://a:4222"}}, ""},
		{"Nats", []string{"Nats=nats://ann:secret@a:4222"}, configs.Connection{NATS: configs.Strings{"nats://a:4222"}, User: "ann", Password: "secret"}, ""},
		{"Nats", []string{"Nats=nats://t0ken@a:4222"}, configs.Connection{NATS: configs.Strings{"nats://a:4222"}, Token: "t0ken"}, ""},
		{"Nats", []string{"Nats__servers=nats://a:4222", "Nats__user=ann", "Nats__password=secret"}, configs.Connection{NATS: configs.Strings{"nats://a:4222"}, User: "ann", Password: "secret"}, ""},
		{"Nats", []string{"Nats=nats://a:4222", "Nats__credentials=file:x.creds"}, configs.Connection{NATS: configs.Strings{"nats://a:4222"}, Credentials: "file:x.creds"}, ""},
		{"Nats", []string{"Nats=localhost"}, configs.Connection{}, "Nats (environment) has no URL of a server"},
		{"Nats", []string{"Nats__servers=nats://%zz:secret@a"}, configs.Connection{}, "has no URL of a server"},
		{"Nats", nil, configs.Connection{}, "no setting Nats (nor Nats__servers"},
	} {
		env, _ := environment(test.variables...)
		got, err := Settings{env: env}.findConnection(test.name, &natsServers)
		switch {
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%v: the error is %v; want %s", test.variables, err, test.err)
		case test.err == "" && (err != nil || !reflect.DeepEqual(got.Connection, test.want)):
			t.Errorf("%v: %+v, %v; want %+v", test.variables, got.Connection, err, test.want)
		}
	}
}

func TestNATSTrigger(t *testing.T) {
	t.Parallel()
	functions := map[string]string{
		"orders": `[{"type": "natsTrigger", "direction": "IN", "name": "msg", "connection": "Nats", "subject": "%PREFIX%.orders.*", "stream": "ORDERS", "consumer": "billing", "ordering_token": 3, "create": true, "dead_letters": "LOST"},
			{"type": "nats", "direction": "OUT", "name": "done", "connection": "Nats", "subject": "receipts"}]`,
		"small": `[{"type": "natsTrigger", "name": "msg", "connection": "Nats"}]`,
	}
	tr := translated(t, nil, functions, "Nats=nats://ann:SECRET@queue.example:4222", "PREFIX=shop")
	if len(tr.Errors)+len(tr.Warnings) > 0 {
		t.Fatalf("%v %v", tr.Errors, tr.Warnings)
	}
	if err := tr.Complete("drover.yaml", nil); err != nil {
		t.Fatal(err)
	}
	n := tr.Config.Functions["orders"].Trigger.NATS
	if n == nil || n.Connection != "Nats" || n.Subject != "shop.orders.*" || n.Stream != "ORDERS" || n.Consumer != "billing" || n.OrderingToken != 3 || !*n.Create || n.DeadLetters != "LOST" {
		t.Errorf("the trigger is %+v", n)
	}
	if n = tr.Config.Functions["small"].Trigger.NATS; n == nil || n.Stream != "small" || n.Consumer != "small" || *n.Create || n.DeadLetters != "small-DEAD" {
		t.Errorf("the trigger is %+v", n)
	}
	if c := tr.Config.Connections["Nats"]; c.User != "ann" || c.Password != "SECRET" {
		t.Errorf("the connection is %+v", c)
	}
	var out strings.Builder
	if err := tr.Describe(&out); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, part := range []string{
		"trigger natsTrigger msg: stream ORDERS of NATS on Nats, subject shop.orders.*", "output nats done: subject receipts on Nats",
		"connection Nats NATS at nats://queue.example:4222, with user ann (Nats, environment)",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the description has no %q:\n%s", part, out.String())
		}
	}
	if strings.Contains(text, "SECRET") {
		t.Errorf("the description has a secret:\n%s", out.String())
	}
	tr = translated(t, nil, map[string]string{"f": `[{"type": "natsTrigger", "name": "msg", "connection": "Nats", "ordering_token": "x"}]`}, "Nats=nats://a:4222")
	if len(tr.Errors) != 1 || !strings.Contains(tr.Errors[0].Message, `orderingToken of natsTrigger (msg) is "x"`) {
		t.Errorf("%v", tr.Errors)
	}
}
