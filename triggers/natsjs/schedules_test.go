package natsjs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/schedules"
	"github.com/drover-run/drover/triggers/sdktest"
)

// sendAt sends a message that is due at a time.
func sendAt(ctx context.Context, c *client.Connection, subject string, at time.Time) error {
	s := c.NewSender()
	m := &triggers.Message{
		Subject: subject, Body: []byte("later"), Attributes: map[string]string{"team": "blue"},
		Origin: triggers.Known{triggers.ScheduledAt: at.Format(time.RFC3339Nano), triggers.CorrelationID: "c1"},
	}
	return errors.Join(s.Send(ctx, m), s.Flush(ctx))
}

// The server holds a message until it is due, even across a restart. The function gets the original
// message. Its dead letter can be replayed.
func TestScheduledMessage(t *testing.T) {
	dir := t.TempDir()
	server := startServer(t, dir)
	c := connect(t, server)
	open(t, c, testConfig(t))
	at := time.Now().Add(2 * time.Second)
	if err := sendAt(t.Context(), c, "orders.x", at); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Close(), server.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	c = connect(t, startServer(t, dir))
	tr := open(t, c, testConfig(t))
	d := receive(t, tr, 1)[0]
	if time.Now().Before(at) {
		t.Errorf("it was received %v too early", time.Until(at))
	}
	want := map[string]string{"team": "blue", "Correlation-Id": "c1"}
	if m := d.Message; m.Subject != "orders.x" || string(m.Body) != "later" || !maps.Equal(m.Attributes, want) || !strings.HasPrefix(m.ID, "ORDERS:") {
		t.Errorf("the function gets %+v", m)
	}
	settle(t, d, triggers.Verdict{Kind: triggers.Reject, Reason: "no", Function: "f"})
	dead := openDead(t, c, nil)
	letters := browseAll(t, dead)
	if len(letters) != 1 {
		t.Fatalf("%d dead letters", len(letters))
	}
	if err := dead.Replay(t.Context(), letters[0], time.Time{}); err != nil {
		t.Fatal(err)
	}
	again := receive(t, tr, 1)[0]
	settle(t, again, triggers.Verdict{Kind: triggers.Done})
	if !maps.Equal(again.Message.Attributes, want) {
		t.Errorf("the replayed message has %v", again.Message.Attributes)
	}
	s, err := c.JetStream().Stream(t.Context(), "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n > 1 { // the settlement of the replay may be in transit
		t.Errorf("the stream keeps %d messages", n)
	}
}

// If a stream that drover did not create does not allow schedules, the message is refused, and
// nothing is sent.
func TestScheduleRefused(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	in := time.Now().Add(time.Hour)
	for name, test := range map[string]struct {
		stream   jetstream.StreamConfig
		consumer string // its filter
		want     string
	}{
		"not allowed": {jetstream.StreamConfig{}, "%s.a", "does not allow scheduled messages; allow them with: nats stream edit"},
		"no subject":  {jetstream.StreamConfig{AllowMsgSchedules: true}, "%s.a", `--subjects "`},
		"interest":    {jetstream.StreamConfig{Retention: jetstream.InterestPolicy, AllowMsgSchedules: true}, "%s.a", "retention policy interest"},
		"max_age":     {jetstream.StreamConfig{MaxAge: time.Minute, AllowMsgSchedules: true, Subjects: []string{"%s-SCHEDULED.>"}}, "%s.a", "too far ahead: the stream"},
		"no filter":   {jetstream.StreamConfig{AllowMsgSchedules: true, Subjects: []string{"%s-SCHEDULED.>"}}, "", "has no filter subject"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := test.stream
			cfg.Name = strings.ToUpper(strings.ReplaceAll(name, " ", "-"))
			for i, s := range cfg.Subjects {
				cfg.Subjects[i] = fmt.Sprintf(s, cfg.Name)
			}
			cfg.Subjects = append(cfg.Subjects, cfg.Name+".a")
			s, err := c.JetStream().CreateStream(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			filter := ""
			if test.consumer != "" {
				filter = fmt.Sprintf(test.consumer, cfg.Name)
			}
			if _, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "c", FilterSubject: filter, AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
				t.Fatal(err)
			}
			if err := sendAt(t.Context(), c, cfg.Name+".a", in); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, want %q", err, test.want)
			}
			if info, err := s.Info(t.Context()); err != nil || info.State.Msgs != 0 {
				t.Errorf("the stream has %+v, %v", info.State, err)
			}
		})
	}
	if err := sendAt(t.Context(), c, "nowhere", in); !errors.Is(err, client.ErrNoStream) {
		t.Errorf("a subject of no stream: %v", err)
	}
	s := c.NewSender()
	m := &triggers.Message{Subject: "x", Origin: triggers.Known{triggers.ScheduledAt: "tomorrow"}}
	if err := s.Send(t.Context(), m); !errors.Is(err, triggers.ErrProperty) {
		t.Errorf("no time: %v", err)
	}
}

// The command in the error enables schedules in a stream that drover did not create.
func TestScheduleCommand(t *testing.T) {
	command := sdktest.Natscli(t)
	server := startServer(t, t.TempDir())
	c := connect(t, server)
	if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "SHOP", Subjects: []string{"shop.a", "shop.b"}}); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(time.Second)
	err := sendAt(t.Context(), c, "shop.a", at)
	if err == nil {
		t.Fatal("it was accepted")
	}
	_, line, _ := strings.Cut(err.Error(), "allow them with: nats ")
	line = strings.ReplaceAll(line, `"`, "")
	args := append([]string{"--server", server.ClientURL(), "--token", server.Token()}, strings.Fields(line)...)
	if out, err := exec.CommandContext(t.Context(), command, append(args, "--force")...).CombinedOutput(); err != nil {
		t.Fatalf("nats %s: %v\n%s", line, err, out)
	}
	if err := sendAt(t.Context(), c, "shop.a", at); err != nil {
		t.Fatal(err)
	}
	s, err := c.JetStream().Stream(t.Context(), "SHOP")
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{FilterSubject: "shop.a"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := consumer.Next(jetstream.FetchMaxWait(patience)); err != nil || string(m.Data()) != "later" {
		t.Errorf("received %v, %v", m, err)
	}
}

// A server before 2.12 ignores the settings for schedules. A fake API simulates such a server.
func TestScheduleOnAnOldServer(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	api := map[string]any{
		"STREAM.NAMES":         map[string]any{"streams": []string{"ORDERS"}, "total": 1},
		"STREAM.INFO.ORDERS":   map[string]any{"config": map[string]any{"name": "ORDERS", "subjects": []string{"orders"}, "retention": "workqueue", "description": "made by drover"}},
		"CONSUMER.LIST.ORDERS": map[string]any{"total": 0, "consumers": []any{}},
		"INFO":                 map[string]any{"api": map[string]any{"level": 1}},
	}
	js, err := jetstream.NewWithAPIPrefix(c.Conn(), "OLD")
	if err != nil {
		t.Fatal(err)
	}
	for subject, answer := range api {
		text, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Conn().Subscribe("OLD."+subject, func(m *nats.Msg) { _ = m.Respond(text) }); err != nil {
			t.Fatal(err)
		}
	}
	err = schedules.NewPlanner(js).Delay(t.Context(), nats.NewMsg("orders"), time.Now().Add(time.Hour))
	if want := "the server is too old to schedule messages: this needs nats-server 2.12"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %q", err, want)
	}
}
