package sources

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/triggers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// load completes a configuration over a new data directory.
func load(t *testing.T, text string) Config {
	t.Helper()
	cfg, err := configs.Parse("drover.yaml", []byte(text), t.TempDir(), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	cfg.DataDir = t.TempDir()
	return Config{Settings: cfg, Stores: new(Stores), Log: slog.New(slog.DiscardHandler)}
}

const allKinds = `
connections:
  embedded: {nats: embedded, listen: off}
  bus: {connection_string: "Endpoint=sb://nowhere.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=czNjcjN0"}
  store: {connection_string: "UseDevelopmentStorage=true"}
functions:
  tokens: {trigger: {nats: {connection: embedded, subject: "orders.*", stream: orders, ordering_token: 2, create: false}}, handler: {go: f}}
  whole: {trigger: {nats: {connection: embedded}}, handler: {go: f}}
  sessions: {trigger: {servicebus: {queue: carts, sessions: true, session_state: true}}, handler: {go: f}}
  events: {trigger: {servicebus: {topic: events, subscription: billing}}, handler: {go: f}}
  images: {trigger: {storage_queue: {queue: images}}, handler: {go: f}}
  clean: {trigger: {timer: {schedule: "0 * * * * *"}}, handler: {go: f}}
`

func TestTraits(t *testing.T) {
	functions := load(t, allKinds).Settings.Functions
	letter := &triggers.DeadLetter{Message: triggers.Message{OrderingKey: "ann"}}
	for _, test := range []struct {
		function, system, name, address, key string
		limit                                int
		state, hides, requires               bool
	}{
		{function: "tokens", system: "nats", name: "orders.*", key: "ann", requires: true},
		{function: "whole", system: "nats", name: "whole", address: "whole"},
		{function: "sessions", system: "servicebus", name: "carts", address: "carts", key: "ann", state: true},
		{function: "events", system: "servicebus", name: "events", address: "events"},
		{function: "images", system: "azure_storage_queue", name: "images", address: "images", limit: 32, hides: true},
		{function: "clean", system: "timer", name: "0 * * * * *"},
		{function: "none"},
	} {
		trigger := functions[test.function].Trigger
		got := TraitsOf(trigger)
		if got.Entity.System != test.system || got.Entity.Name != test.name || got.Target.Address != test.address || got.Target.Connection != trigger.ConnectionName() {
			t.Errorf("%s: %+v", test.function, got)
		}
		if got.PeekLimit != test.limit || got.SessionState != test.state || got.BrowseHides != test.hides || (got.Requirement != "") != test.requires {
			t.Errorf("%s: %+v", test.function, got)
		}
		if key := ReplayKey(trigger)(letter); key != test.key {
			t.Errorf("%s: the order is within %q, want %q", test.function, key, test.key)
		}
	}
	if got := TraitsOf(functions["tokens"].Trigger); got.CannotSend != "consumes the subjects orders.*; send to one subject that it matches" || !strings.Contains(got.Requirement, "nats stream add") {
		t.Errorf("%+v", got)
	}
}

// A timer keeps its state where its connection is, and without one in the data directory of the
// daemon or of its parent.
func TestTimerStores(t *testing.T) {
	const function = "  timer: {trigger: {timer: {schedule: \"0 * * * * *\", run_on_startup: true%s}}, handler: {go: f}}\n"
	for keys, want := range map[string]string{
		"":                                    "*timer.Directory",
		", connection: embedded, group: shop": "*timerstore.Store, of natsjs",
		", connection: store, group: shop":    "*timerstore.Store, of storagequeue",
	} {
		c := load(t, allKinds+fmt.Sprintf(function, keys))
		c.Parent, c.Stores = "", new(Stores)
		s := New(c, nil, nil)
		settings := c.Settings.Functions["timer"]
		store, err := timerSource{settings.Trigger.Timer}.openStore(t.Context(), s, TriggerConfig{Function: "timer", Settings: settings, Log: c.Log})
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%T", store)
		if in := reflect.TypeOf(store).Elem().PkgPath(); strings.Contains(in, "timerstore") {
			got += ", of " + path.Base(path.Dir(in))
		}
		if got != want {
			t.Errorf("%q: the store is %s, want %s", keys, got, want)
		}
		tr, err := s.OpenTrigger(t.Context(), TriggerConfig{Function: "timer", Settings: settings, Log: c.Log})
		if err == nil {
			err = tr.Close(t.Context())
		}
		if err = errors.Join(err, s.Close(nil)); err != nil {
			t.Errorf("%q: %v", keys, err)
		}
	}
	c := load(t, allKinds)
	c.Parent = t.TempDir()
	clean := c.Settings.Functions["clean"]
	tr, err := New(c, nil, nil).OpenTrigger(t.Context(), TriggerConfig{Function: "clean", Settings: clean, Log: c.Log})
	if err == nil {
		err = tr.Close(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.Parent, "timers")); err != nil {
		t.Errorf("the parent has no timers: %v", err)
	}
}

func TestAcceptedParts(t *testing.T) {
	c := load(t, allKinds)
	for name, want := range map[string]string{
		"embedded": "headers true, sessions true, ttl false, delay 0s, subject false",
		"bus":      "headers true, sessions true, ttl false, delay 0s, subject true",
		"store":    "headers false, sessions false, ttl true, delay 168h0m0s, subject true",
	} {
		a := AcceptedBy(c, name)
		if got := fmt.Sprintf("headers %v, sessions %v, ttl %v, delay %v, subject %v", a.Headers, a.Sessions, a.TTL, a.MaxDelay, a.Property("subject")); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// counted is a resource that counts how often it is closed.
type counted struct{ closed *[]string }

func (c *counted) Close() error {
	*c.closed = append(*c.closed, "closed")
	return errors.New("no luck")
}

// A reload closes, once, the resources that the next Set does not share. A refused reload closes the new ones.
func TestReuse(t *testing.T) {
	c := load(t, allKinds)
	closed := make(map[string]*[]string)
	open := func(s *Set, name string) *counted {
		t.Helper()
		own, err := shareResource(s, name, s.canReuse(name), func() (*counted, error) {
			if closed[name] == nil {
				closed[name] = new([]string)
			}
			return &counted{closed[name]}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return own
	}
	first := New(c, nil, nil)
	bus, store := open(first, "bus"), open(first, "store")
	if open(first, "bus") != bus {
		t.Error("a Set opened a resource twice")
	}

	changed := c
	settings := *c.Settings
	settings.Connections = map[string]configs.Connection{"bus": c.Settings.Connections["bus"], "store": {StorageAccount: "other"}}
	changed.Settings = &settings
	refused := New(changed, nil, first)
	if open(refused, "bus") != bus || open(refused, "store") == store {
		t.Error("what has not changed was not reused, or what has changed was")
	}
	if err := refused.Close(first); err == nil || len(*closed["bus"]) != 0 || len(*closed["store"]) != 1 {
		t.Errorf("%v; bus %v, store %v", err, *closed["bus"], *closed["store"])
	}

	next := New(changed, nil, first)
	open(next, "bus")
	open(next, "store")
	next.DropEarlier()
	if next.canReuse("bus") {
		t.Error("the earlier Set is still held")
	}
	_ = first.Close(next)
	if len(*closed["bus"]) != 0 || len(*closed["store"]) != 2 {
		t.Errorf("bus %v, store %v", *closed["bus"], *closed["store"])
	}
	_ = next.Close(nil)
	if len(*closed["bus"]) != 1 || len(*closed["store"]) != 3 {
		t.Errorf("bus %v, store %v", *closed["bus"], *closed["store"])
	}
}

// The ledger is one file: the next Set has it from the start, even if no function needs a new one.
func TestTheLedgerIsCarriedOver(t *testing.T) {
	c := load(t, allKinds)
	first := New(c, nil, nil)
	ledger, err := shareLedger(first)
	if err != nil {
		t.Fatal(err)
	}
	account, err := shareAccount(first, "store")
	if err != nil {
		t.Fatal(err)
	}
	next := New(c, nil, first)
	if err := next.OpenConnections(t.Context(), []string{"store", "bus"}); err != nil {
		t.Fatal(err)
	}
	next.DropEarlier()
	if err := first.Close(next); err != nil {
		t.Fatal(err)
	}
	again, err := shareLedger(next)
	if err != nil || again != ledger {
		t.Errorf("the ledger was opened again: %v", err)
	}
	if a, err := shareAccount(next, "store"); err != nil || a != account {
		t.Errorf("the account was opened again: %v", err)
	}
	if err := next.Close(nil); err != nil {
		t.Error(err)
	}
}

// An embedded server is listed while it runs. A connection of the program is used, and left open.
func TestEmbeddedServers(t *testing.T) {
	c := load(t, allKinds)
	s := New(c, nil, nil)
	if err := s.OpenConnections(t.Context(), []string{"embedded", "bus", "store"}); err != nil {
		t.Fatal(err)
	}
	if names := c.Stores.Names(); !slices.Equal(names, []string{"embedded"}) {
		t.Errorf("embedded servers: %v", names)
	}
	if since, err := c.Stores.FailureOf("embedded"); err != nil || !since.IsZero() {
		t.Errorf("%v since %v", err, since)
	}
	settings := c.Settings.Functions["whole"]
	trigger, err := s.OpenTrigger(t.Context(), TriggerConfig{Function: "whole", Settings: settings, Log: c.Log})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(trigger.Close(t.Context()), s.Close(nil)); err != nil {
		t.Error(err)
	}
	if names := c.Stores.Names(); len(names) > 0 {
		t.Errorf("embedded servers after the end: %v", names)
	}

	server, err := StartServer(t.Context(), c, "embedded")
	if err != nil {
		t.Fatal(err)
	}
	given := New(c, map[string]*Connection{"embedded": server.Connection}, nil)
	if err := given.OpenConnections(t.Context(), []string{"embedded"}); err != nil {
		t.Fatal(err)
	}
	if err := given.Close(nil); err != nil {
		t.Error(err)
	}
	if n, err := server.CountMessages(t.Context(), "whole"); err != nil || n != 0 {
		t.Errorf("%d messages, %v", n, err)
	}
	if n, err := server.CountMessages(t.Context(), "none"); err != nil || n != 0 {
		t.Errorf("%d messages of no stream, %v", n, err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}

// A command that reads creates no store, and finds no messages.
func TestAStoreThatWasNeverUsed(t *testing.T) {
	c := load(t, allKinds)
	p, done, err := OpenPeeker(t.Context(), c, "whole")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Peek(t.Context(), 10); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
	d, hangUp, err := OpenDeadLetters(t.Context(), c, "whole", false)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Browse(t.Context(), 10); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
	if err := errors.Join(p.Close(t.Context()), done(), d.Close(t.Context()), hangUp()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.Settings.DataDir, "*")); len(left) > 0 {
		t.Errorf("the commands made %v", left)
	}
}

// Messages that are sent while no daemon runs wait for the function.
func TestSendingWithoutADaemon(t *testing.T) {
	c := load(t, allKinds)
	send := func(body string) {
		t.Helper()
		to := TraitsOf(c.Settings.Functions["whole"].Trigger).Target
		to.Function = "whole"
		s, done, err := OpenSender(t.Context(), c, to, SendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Send(t.Context(), &triggers.Message{Subject: to.Address, Body: []byte(body)}), s.Flush(t.Context()), done()); err != nil {
			t.Fatal(err)
		}
	}
	send("one")
	send("two")
	p, done, err := OpenPeeker(t.Context(), c, "whole")
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Peek(t.Context(), 10)
	if err != nil || len(got) != 2 || string(got[0].Body) != "one" || string(got[1].Body) != "two" {
		t.Errorf("%v, %v", got, err)
	}
	if err := errors.Join(p.Close(t.Context()), done()); err != nil {
		t.Error(err)
	}
}

// A configuration that names no source is an error, not a crash.
func TestNoKind(t *testing.T) {
	c := load(t, allKinds)
	s := New(c, nil, nil)
	if _, err := s.OpenTrigger(t.Context(), TriggerConfig{}); !errors.Is(err, errNoKind) {
		t.Errorf("%v", err)
	}
	if _, err := s.OpenOutput(t.Context(), configs.Output{}); !errors.Is(err, errNoKind) {
		t.Errorf("%v", err)
	}
	if _, _, err := OpenSender(t.Context(), c, Target{Connection: "none"}, SendOptions{}); !errors.Is(err, errNoKind) {
		t.Errorf("%v", err)
	}
	if got := LocalTrigger(time.Second); got.ConnectionName() != "" || TraitsOf(got).Entity.System != "nats" {
		t.Errorf("%+v", got)
	}
}
