package natsjs

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/deadletters"
)

// logBook is a log that can be read while it is written.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// succeed calls do until it returns no error. A young cluster may briefly have no leader, or a peer
// that counts as offline.
func succeed(t testing.TB, do func() error) {
	t.Helper()
	var err error
	deadline := time.Now().Add(patience)
	waitFor(t, "success", func() bool {
		if err = do(); err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// existing creates a stream and a consumer like an operator, and returns the configuration for
// them.
func existing(t testing.TB, c *client.Connection, replicas int) Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.Create = false
	succeed(t, func() error {
		_, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: cfg.Stream, Subjects: []string{cfg.Subject}, Retention: jetstream.WorkQueuePolicy, Replicas: replicas})
		return err
	})
	succeed(t, func() error {
		_, err := c.JetStream().CreateConsumer(t.Context(), cfg.Stream, jetstream.ConsumerConfig{Durable: cfg.Consumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: cfg.AckWait, FilterSubject: cfg.Subject})
		return err
	})
	return cfg
}

func troublesOf(tr triggers.Trigger, kind string) string {
	for _, one := range tr.(triggers.Troubled).Troubles() {
		if one.Kind == kind {
			return one.Text
		}
	}
	return ""
}

// At the start a missing dead-letter stream is reported, with the command that creates it; once it
// exists, the problem is gone.
func TestADeadLetterStreamThatIsMissing(t *testing.T) {
	c := dialBroker(t, client.Config{URLs: []string{startBroker(t, nil).url()}})
	cfg := existing(t, c, 1)
	var log logBook
	cfg.Log = log.logger()
	tr := open(t, c, cfg)
	const command = "nats stream add ORDERS-DEAD --subjects 'ORDERS-DEAD.>' --storage file --defaults"
	if said := troublesOf(tr, triggers.TroubleDeadLetters); !strings.Contains(said, command) {
		t.Errorf("the trouble is %q", said)
	}
	if !strings.Contains(log.String(), command) {
		t.Errorf("the log does not name the command:\n%s", log.String())
	}
	send(t, c, "orders.x", "1")
	d := receive(t, tr, 1)[0]
	if err := d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Reject, Reason: "no"}); err == nil || !strings.Contains(err.Error(), command) {
		t.Errorf("%v", err)
	}
	if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS-DEAD", Subjects: []string{"ORDERS-DEAD.>"}}); err != nil {
		t.Fatal(err)
	}
	tr.(*trigger).settler.graveyard.Check(t.Context())
	if said := troublesOf(tr, triggers.TroubleDeadLetters); said != "" {
		t.Errorf("there still is %q", said)
	}
	settle(t, d, triggers.Verdict{Kind: triggers.Reject, Reason: "no"})
	if dead := deadLetters(t, c, "ORDERS-DEAD"); len(dead) != 1 {
		t.Errorf("%d dead letters, want the one; the check must store none", len(dead))
	}
}

// A stream with another name, or only for some subjects, can take dead letters.
func TestADeadLetterStreamOfAnotherName(t *testing.T) {
	for _, subject := range []string{"ORDERS-DEAD.>", "ORDERS-DEAD.orders.*"} {
		c := dialBroker(t, client.Config{URLs: []string{startBroker(t, nil).url()}})
		cfg := existing(t, c, 1)
		if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ALL-DEAD", Subjects: []string{subject}}); err != nil {
			t.Fatal(err)
		}
		if said := troublesOf(open(t, c, cfg), triggers.TroubleDeadLetters); said != "" {
			t.Errorf("%s: %s", subject, said)
		}
	}
}

// A dead letter that is too large for its stream is shortened like one that is too large for the
// server.
func TestADeadLetterLargerThanItsStreamTakes(t *testing.T) {
	c := dialBroker(t, client.Config{URLs: []string{startBroker(t, nil).url()}})
	cfg := existing(t, c, 1)
	if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS-DEAD", Subjects: []string{"ORDERS-DEAD.>"}, MaxMsgSize: 2000}); err != nil {
		t.Fatal(err)
	}
	tr := open(t, c, cfg)
	send(t, c, "orders.x", strings.Repeat("x", 5000))
	settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Reject, Reason: "no"})
	dead := deadLetters(t, c, "ORDERS-DEAD")
	if len(dead) != 1 || len(dead[0].Data) < 1000 || dead[0].Header.Get("Drover-Body-Length") != "5000" || dead[0].Header.Get("Drover-Error") != "no" {
		t.Fatalf("%+v", dead)
	}
	letters, err := deadletters.Open(t.Context(), c.JetStream(), deadletters.Config{Stream: "ORDERS", DeadLetters: "ORDERS-DEAD"})
	if err != nil {
		t.Fatal(err)
	}
	all, err := letters.Browse(t.Context(), 10)
	if err != nil || len(all) != 1 || !strings.Contains(all[0].Detail, "5000 bytes was cut") {
		t.Fatalf("%+v, %v", all, err)
	}
	if err := letters.Replay(t.Context(), all[0], time.Time{}); err == nil || !strings.Contains(err.Error(), "of the 5000 bytes") {
		t.Errorf("a part of a message was replayed: %v", err)
	}
}

// A full dead-letter stream refuses dead letters, with the server's error.
func TestADeadLetterStreamThatIsFull(t *testing.T) {
	c := dialBroker(t, client.Config{URLs: []string{startBroker(t, nil).url()}})
	cfg := existing(t, c, 1)
	if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS-DEAD", Subjects: []string{"ORDERS-DEAD.>"}, MaxMsgs: 1, Discard: jetstream.DiscardNew}); err != nil {
		t.Fatal(err)
	}
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "1", "2")
	got := receive(t, tr, 2)
	settle(t, got[0], triggers.Verdict{Kind: triggers.Reject, Reason: "no"})
	if err := got[1].Settle(t.Context(), triggers.Verdict{Kind: triggers.Reject, Reason: "no"}); err == nil || !strings.Contains(err.Error(), "maximum messages exceeded") {
		t.Errorf("%v", err)
	}
	done(t, got[1])
}

// A cluster of three servers loses one. The attempts bucket and the dead-letter stream that drover
// creates have as many replicas as the stream.
func TestAClusterKeepsAttemptsAndDeadLetters(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	c := dialBroker(t, client.Config{URLs: urls})
	cfg := existing(t, c, 3)
	cfg.Create = true // the dead letters
	cfg.AckWait = lease
	tr := open(t, c, cfg)
	for _, body := range []string{"again", "bad"} {
		s := c.NewSender()
		// A server may not know yet that another server of the cluster has the stream.
		for err := client.ErrNoStream; err != nil; {
			err = errors.Join(s.Send(t.Context(), &triggers.Message{Subject: "orders.x", Body: []byte(body)}), s.Flush(t.Context()))
			if err != nil && !errors.Is(err, client.ErrNoStream) {
				t.Fatal(err)
			}
		}
	}
	for _, d := range receive(t, tr, 2) {
		verdict := triggers.Verdict{Kind: triggers.Retry}
		if string(d.Message.Body) == "bad" {
			verdict = triggers.Verdict{Kind: triggers.Reject, Reason: "no"}
		}
		succeed(t, func() error { return d.Settle(t.Context(), verdict) }) // as the dispatcher does
	}
	leader := ""
	for _, name := range []string{"KV_" + client.AttemptsBucket, "ORDERS-DEAD"} {
		s, err := c.JetStream().Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().Config.Replicas; n != 3 {
			t.Errorf("%s has %d replicas, want 3", name, n)
		}
		leader = s.CachedInfo().Cluster.Leader
	}
	d := receive(t, tr, 1)[0]
	for _, s := range servers {
		if s.Name() == leader {
			s.Shutdown()
			s.WaitForShutdown()
		}
	}
	waitFor(t, "the dead letters after a server went", func() bool {
		return d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Reject, Reason: "no"}) == nil
	})
	var dead []*jetstream.RawStreamMsg
	waitFor(t, "a leader of the dead letters", func() bool {
		s, err := c.JetStream().Stream(t.Context(), "ORDERS-DEAD")
		return err == nil && s.CachedInfo().State.Msgs == 2
	})
	dead = deadLetters(t, c, "ORDERS-DEAD")
	if last := dead[len(dead)-1]; last.Header.Get("Drover-Attempts") != "2" {
		t.Errorf("the attempts are %s, want 2", last.Header.Get("Drover-Attempts"))
	}
}

// The replicas of buckets and streams that drover created earlier are raised to the stream's
// number.
func TestReplicasAreRaised(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	c := dialBroker(t, client.Config{URLs: []string{servers[0].ClientURL()}})
	cfg := existing(t, c, 3)
	cfg.Create = true
	succeed(t, func() error {
		_, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS-DEAD", Description: "messages that drover rejected from ORDERS", Subjects: []string{"ORDERS-DEAD.>"}})
		return err
	})
	succeed(t, func() error {
		_, err := c.JetStream().CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: client.AttemptsBucket, Description: "how often messages have failed"})
		return err
	})
	open(t, c, cfg)
	for _, name := range []string{"KV_" + client.AttemptsBucket, "ORDERS-DEAD"} {
		waitFor(t, "three replicas of "+name, func() bool {
			s, err := c.JetStream().Stream(t.Context(), name)
			if err != nil || s.CachedInfo().Config.Replicas != 3 || s.CachedInfo().Cluster == nil {
				return false
			}
			current := 0 // a server that ends while it makes one leaves a goroutine behind
			for _, peer := range s.CachedInfo().Cluster.Replicas {
				if peer.Current {
					current++
				}
			}
			return current == 2
		})
	}
}

// startCluster starts a cluster of three servers with JetStream.
func startCluster(t testing.TB) []*server.Server {
	t.Helper()
	var ports []int
	var routes []string
	for range 3 { // a server needs routes before the others are there
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, free.Addr().(*net.TCPAddr).Port)
		routes = append(routes, "nats://"+free.Addr().String())
		_ = free.Close()
	}
	var out []*server.Server
	for n, port := range ports {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", n), Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}, Routes: server.RoutesFromStr(strings.Join(routes, ",")),
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		out = append(out, s)
	}
	waitFor(t, "a cluster of three", func() bool {
		for _, s := range out {
			if !s.ReadyForConnections(time.Millisecond) || !s.JetStreamIsCurrent() {
				return false
			}
		}
		return len(out[0].JetStreamClusterPeers())+len(out[1].JetStreamClusterPeers())+len(out[2].JetStreamClusterPeers()) >= 3
	})
	return out
}
