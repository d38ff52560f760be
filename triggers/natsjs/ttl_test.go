package natsjs

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/convert"
)

// A replayed message has its sender's time to live, if its stream supports one.
func TestAReplayKeepsTheTimeToLive(t *testing.T) {
	for name, test := range map[string]struct {
		allowed bool // at the replay
		want    string
	}{"allowed": {true, "1h"}, "not allowed any more": {false, ""}} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, startServer(t, t.TempDir()))
			cfg := testConfig(t)
			stream := jetstream.StreamConfig{Name: cfg.Stream, Subjects: []string{cfg.Subject}, AllowMsgTTL: true}
			if _, err := c.JetStream().CreateStream(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
			tr := open(t, c, cfg)
			m := nats.NewMsg("orders.x")
			m.Header.Set(jetstream.MsgTTLHeader, "1h")
			if _, err := c.JetStream().PublishMsg(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Reject, Reason: "no", Function: "f"})
			if !test.allowed { // a stream cannot be changed to that
				if err := tr.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				stream.AllowMsgTTL = false
				if err := c.JetStream().DeleteStream(t.Context(), cfg.Stream); err != nil {
					t.Fatal(err)
				}
				if _, err := c.JetStream().CreateStream(t.Context(), stream); err != nil {
					t.Fatal(err)
				}
			}
			d := openDead(t, c, nil)
			all := browseAll(t, d)
			if len(all) != 1 {
				t.Fatalf("%d dead letters", len(all))
			}
			if err := d.Replay(t.Context(), all[0], time.Time{}); err != nil {
				t.Fatal(err)
			}
			s, err := c.JetStream().Stream(t.Context(), cfg.Stream)
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.GetLastMsgForSubject(t.Context(), "orders.x")
			if err != nil {
				t.Fatal(err)
			}
			if got := again.Header.Get(jetstream.MsgTTLHeader); got != test.want || again.Header.Get(convert.ReplayedID) == "" {
				t.Errorf("the time to live is %q, want %q; headers %v", got, test.want, again.Header)
			}
		})
	}
}
