package natsjs

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
)

func TestADeadLetterKeepsWhatTheMessageHad(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	s := c.NewSender()
	if err := s.Send(t.Context(), &triggers.Message{Subject: "orders.new", Attributes: map[string]string{"Nats-Msg-Id": "own-id", "Nats-Expected-Stream": "ORDERS", "customer": "42"}, Body: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := receive(t, tr, 1)[0]
	if d.Message.ID != "own-id" {
		t.Errorf("the id is %q", d.Message.ID)
	}
	settle(t, d, triggers.Verdict{Kind: triggers.Reject, Reason: "two\nlines", Detail: "a\n\tb", Function: "f"})
	dead := deadLetters(t, c, "ORDERS-DEAD")
	if len(dead) != 1 || dead[0].Subject != "ORDERS-DEAD.orders.new" {
		t.Fatalf("%d dead letters: %+v", len(dead), dead)
	}
	for name, want := range map[string]string{
		"customer": "42", "Drover-Original-Nats-Msg-Id": "own-id", "Drover-Original-Nats-Expected-Stream": "ORDERS",
		"Drover-Error": "two lines", "Drover-Traceback": `"a\n\tb"`, "Drover-Subject": "orders.new", "Drover-Stream": "ORDERS",
		"Drover-Sequence": "1", "Drover-Message-Id": "own-id", "Drover-Attempts": "1", "Drover-Function": "f",
	} {
		if got := dead[0].Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestADeadLetterIsNotDoubledByACrash(t *testing.T) {
	t.Parallel()
	server := startServer(t, t.TempDir())
	c := connect(t, server)
	cfg := testConfig(t)
	tr := open(t, c, cfg)
	send(t, c, "orders.new", "bad")
	d := receive(t, tr, 1)[0]
	verdict := triggers.Verdict{Kind: triggers.Reject, Reason: "no"}
	// The copy is made, and then the daemon dies before the original ends.
	l := leaseOf(t, tr, d)
	if err := l.settler.bury(t.Context(), l, d.Message, verdict); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := receive(t, open(t, connect(t, server), cfg), 1)[0]
	settle(t, again, verdict)
	if dead := deadLetters(t, c, "ORDERS-DEAD"); len(dead) != 1 {
		t.Errorf("%d dead letters of one message", len(dead))
	}
}

func TestADeadLetterThatHardlyFits(t *testing.T) {
	b := startBroker(t, func(o *server.Options) { o.MaxPayload = 64 << 10 })
	c := dialBroker(t, client.Config{URLs: []string{b.url()}})
	tr := open(t, c, testConfig(t))
	verdict := triggers.Verdict{Kind: triggers.Reject, Reason: "no", Detail: strings.Repeat("traceback\n", 1000)}
	for name, test := range map[string]struct {
		body      int
		traceback bool
		note      bool
		header    int
		cut       bool
	}{
		"all":               {1000, true, false, 380, false},
		"without traceback": {60 << 10, false, false, 380, false},
		"without headers":   {64<<10 - 700, false, true, 380, false},
		"with a cut body":   {64<<10 - 100, false, true, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.NewSender()
			header := map[string]string{"h": strings.Repeat("x", test.header)}
			if err := errors.Join(s.Send(t.Context(), &triggers.Message{Subject: "orders." + strings.ReplaceAll(name, " ", "-"), Attributes: header, Body: make([]byte, test.body)}), s.Flush(t.Context())); err != nil {
				t.Fatal(err)
			}
			d := receive(t, tr, 1)[0]
			settle(t, d, verdict)
			all := deadLetters(t, c, "ORDERS-DEAD")
			last := all[len(all)-1]
			if test.cut != (len(last.Data) < test.body) || test.cut && (last.Header.Get("Drover-Body-Length") != strconv.Itoa(test.body) || len(last.Data) < test.body-1000) {
				t.Errorf("%d of %d bytes, said to be %q", len(last.Data), test.body, last.Header.Get("Drover-Body-Length"))
			}
			if last.Header.Get("Drover-Error") != "no" || (last.Header.Get("Drover-Traceback") != "") != test.traceback || (last.Header.Get("Drover-Note") != "") != test.note {
				t.Errorf("%d bytes, traceback %v, note %q", len(last.Data), last.Header.Get("Drover-Traceback") != "", last.Header.Get("Drover-Note"))
			}
		})
	}
}

func TestTheLedgerIsEmptiedWhenMessagesEnd(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	tr := open(t, c, testConfig(t))
	send(t, c, "orders.x", "1", "2")
	for _, d := range receive(t, tr, 2) {
		settle(t, d, triggers.Verdict{Kind: triggers.Retry})
	}
	for i, d := range receive(t, tr, 2) {
		settle(t, d, triggers.Verdict{Kind: []triggers.Kind{triggers.Done, triggers.Reject}[i]})
	}
	deadline := time.Now().Add(patience)
	for {
		stream, err := c.JetStream().Stream(t.Context(), "KV_"+client.AttemptsBucket)
		if err != nil {
			t.Fatal(err)
		}
		if stream.CachedInfo().State.Msgs == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d entries are left", stream.CachedInfo().State.Msgs)
		}
	}
}
