package natsjs

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/ledger"
)

// A bucket that can be read but not written, for example because its cluster has no leader:
// attempts are counted further, this is logged once, and the counts are written as soon as the
// bucket accepts them.
func TestABucketOfAttemptsThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	c := connect(t, startServer(t, t.TempDir()))
	bucket := jetstream.KeyValueConfig{Bucket: client.AttemptsBucket, History: 1, MaxBytes: 1}
	if _, err := c.JetStream().CreateKeyValue(t.Context(), bucket); err != nil {
		t.Fatal(err)
	}
	var log logBook
	cfg := testConfig(t)
	cfg.Log = log.logger()
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "fails", "fails, too")
	for attempt := 1; attempt <= 3; attempt++ {
		for _, d := range receive(t, tr, 2) {
			if d.Message.Attempt != attempt {
				t.Errorf("attempt %d, want %d", d.Message.Attempt, attempt)
			}
			settle(t, d, triggers.Verdict{Kind: triggers.Retry})
		}
	}
	if troublesOf(tr, triggers.TroubleAttempts) == "" || strings.Contains(log.String(), "counted again") {
		t.Errorf("the trouble is over too early:\n%s", log.String())
	}
	if got := strings.Count(log.String(), "failures cannot be counted"); got != 1 {
		t.Errorf("said %d times:\n%s", got, log.String())
	}

	last := receive(t, tr, 2)
	bucket.MaxBytes = -1
	kv, err := c.JetStream().UpdateKeyValue(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the trouble", func() bool { return troublesOf(tr, triggers.TroubleAttempts) == "" })
	written := ledger.New(c, cfg.Stream, cfg.Consumer, new(triggers.Troubles), cfg.Log)
	for _, d := range last {
		if got := written.Find(t.Context(), leaseOf(t, tr, d).counted()); got != 3 {
			t.Errorf("the bucket has %d failures, want 3", got)
		}
	}
	if got := strings.Count(log.String(), "failures are counted again"); got != 1 {
		t.Errorf("said %d times:\n%s", got, log.String())
	}
	done(t, last...)
	waitFor(t, "an empty bucket", func() bool {
		s, err := kv.Status(t.Context())
		return err == nil && s.Values() == 0
	})
}

// The problem also ends if no message is left whose failures must be written.
func TestNothingIsLeftToCount(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	if _, err := c.JetStream().CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: client.AttemptsBucket, History: 1, MaxBytes: 1}); err != nil {
		t.Fatal(err)
	}
	var log logBook
	cfg := testConfig(t)
	cfg.Log = log.logger()
	tr := open(t, c, cfg)
	send(t, c, "orders.x", "fails once")
	settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Retry})
	if !strings.Contains(log.String(), "failures cannot be counted") {
		t.Errorf("not said:\n%s", log.String())
	}
	done(t, receive(t, tr, 1)...)
	waitFor(t, "the end of the trouble", func() bool { return troublesOf(tr, triggers.TroubleAttempts) == "" })
}
