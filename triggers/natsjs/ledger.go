package natsjs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
)

// LedgerBucket is the key-value bucket that counts failures. The server's own count is of
// deliveries, which are more. A message that never failed has no entry.
const LedgerBucket = "drover-attempts"

// ledgerTTL is how long an entry is kept if it is not deleted.
const ledgerTTL = 30 * 24 * time.Hour

// ledger counts the failures of one consumer's messages.
type ledger struct {
	js       jetstream.JetStream
	stream   string // the stream of the counted messages
	prefix   string
	troubles *triggers.Troubles

	mu     sync.Mutex
	bucket jetstream.KeyValue
	said   bool             // that the bucket cannot be used was logged
	gone   []string         // keys of settled messages
	owed   map[string]count // counts that the bucket refused, by key
}

// count is the number of failures of a message.
type count struct {
	failures          int
	enqueued, created time.Time // of the message, and of its consumer
}

// maxOwed bounds the counts that wait to be written to the bucket.
const maxOwed = 1 << 16

var plainKey = regexp.MustCompile(`^[-_=a-zA-Z0-9]+$`)

func newLedger(js jetstream.JetStream, cfg Config) *ledger {
	name := func(s string) string {
		if plainKey.MatchString(s) {
			return s
		}
		return "=" + hex.EncodeToString([]byte(s))
	}
	return &ledger{js: js, stream: cfg.Stream, prefix: name(cfg.Stream) + "." + name(cfg.Consumer) + "."}
}

func (l *ledger) key(m *leasedMessage) string { return fmt.Sprint(l.prefix, m.Sequence) }

// subject returns the subject of a sequence's entry in the bucket's stream.
func (l *ledger) subject(sequence uint64) string {
	return fmt.Sprint("$KV.", LedgerBucket, ".", l.prefix, sequence)
}

// ledgerNote is the bucket's description.
const ledgerNote = "how often messages have failed"

// raiseLedger raises the replicas of the bucket to those of the stream.
func (t *trigger) raiseLedger(ctx context.Context) {
	if replicas := t.replicas(ctx); replicas > 1 {
		t.raise(ctx, "KV_"+LedgerBucket, ledgerNote, replicas)
	}
}

// open returns the bucket, and creates it if it does not exist.
func (l *ledger) open(ctx context.Context) (jetstream.KeyValue, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bucket != nil {
		return l.bucket, nil
	}
	bucket, err := l.js.KeyValue(ctx, LedgerBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		bucket, err = l.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: LedgerBucket, Description: ledgerNote + ", by stream, consumer and sequence",
			TTL: ledgerTTL, History: 1, Storage: jetstream.FileStorage, Replicas: replicasOf(ctx, l.js, l.stream),
		})
	}
	if err != nil {
		return nil, fmt.Errorf("opening the key-value bucket %s: %w", LedgerBucket, err)
	}
	l.bucket = bucket
	return bucket, nil
}

// entryOf returns the text of an entry: the failures, when the message was enqueued, and when the
// consumer was created. The times identify the message: a recreated stream or consumer counts
// from 1 again.
func entryOf(failures int, enqueued, created time.Time) []byte {
	return fmt.Append(nil, failures, enqueued.UnixNano(), created.UnixNano())
}

// failuresIn parses an entry; it returns 0 if the entry is of another message. Entries of older
// versions do not have the time of the consumer.
func failuresIn(entry []byte, enqueued, created time.Time) int {
	var failures int
	var message, consumer int64
	n, _ := fmt.Sscan(string(entry), &failures, &message, &consumer)
	if n < 2 || message != enqueued.UnixNano() || n == 3 && consumer != created.UnixNano() {
		return 0
	}
	return failures
}

// get returns the number of failures of a message. If the ledger cannot be read, it returns the
// number of earlier deliveries, which is never lower, so that a message that always fails is
// eventually dead-lettered. A readable bucket may still refuse writes: every server of a cluster
// answers reads, but only the leader accepts writes.
func (l *ledger) get(ctx context.Context, m *leasedMessage, log *slog.Logger) int {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	bucket, err := l.open(ctx)
	if err == nil {
		var entry jetstream.KeyValueEntry
		entry, err = bucket.Get(ctx, l.key(m))
		failures := 0
		if err == nil {
			failures = failuresIn(entry.Value(), m.message.Enqueued, m.life.consumer)
		}
		if err == nil || errors.Is(err, jetstream.ErrKeyNotFound) {
			l.works(log)
			return max(failures, l.owes(l.key(m), m.message.Enqueued, m.life.consumer))
		}
	}
	l.complain(err, log)
	return int(m.deliveries) - 1
}

// owes returns the failures of a message that are not yet written to the bucket.
func (l *ledger) owes(key string, enqueued, created time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.owed[key]; c.enqueued.Equal(enqueued) && c.created.Equal(created) {
		return c.failures
	}
	return 0
}

// put writes the number of failures of a message. A count that the bucket refuses is kept here,
// and written later.
func (l *ledger) put(ctx context.Context, m *leasedMessage, failures int, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	key, c := l.key(m), count{failures, m.message.Enqueued, m.life.consumer}
	bucket, err := l.open(ctx)
	if err == nil {
		_, err = bucket.Put(ctx, key, entryOf(c.failures, c.enqueued, c.created))
	}
	l.mu.Lock()
	if err == nil {
		delete(l.owed, key)
	} else if len(l.owed) < maxOwed {
		if l.owed == nil {
			l.owed = make(map[string]count)
		}
		l.owed[key] = c
	}
	l.mu.Unlock()
	if err != nil {
		l.complain(err, log)
		return
	}
	l.works(log)
}

// pay writes the counts that the bucket refused before.
func (l *ledger) pay(ctx context.Context, log *slog.Logger) {
	l.mu.Lock()
	owed, said := maps.Clone(l.owed), l.said
	l.mu.Unlock()
	if len(owed) == 0 && !said {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second) // the caller tries again soon
	defer cancel()
	bucket, err := l.open(ctx)
	if err == nil && len(owed) == 0 { // all these messages are settled
		_, err = bucket.Status(ctx) // only a leader answers
	}
	for key, c := range owed {
		if err != nil {
			break
		}
		// Another instance may have counted since. The sequence may also belong to another message now.
		if _, err = bucket.Create(ctx, key, entryOf(c.failures, c.enqueued, c.created)); errors.Is(err, jetstream.ErrKeyExists) {
			var entry jetstream.KeyValueEntry
			if entry, err = bucket.Get(ctx, key); err == nil {
				if has := failuresIn(entry.Value(), c.enqueued, c.created); has > 0 && has < c.failures {
					_, err = bucket.Update(ctx, key, entryOf(c.failures, c.enqueued, c.created), entry.Revision())
				}
			}
		}
		if err == nil {
			l.mu.Lock()
			if l.owed[key] == c {
				delete(l.owed, key)
			}
			l.mu.Unlock()
		}
	}
	if err != nil {
		log.Debug("cannot write counts of failures yet", "bucket", LedgerBucket, "error", err)
		return
	}
	l.works(log)
}

// works records that the bucket works. It clears the trouble when all counts are written.
func (l *ledger) works(log *slog.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.said && len(l.owed) == 0 {
		l.said = false
		l.troubles.Clear(triggers.TroubleAttempts)
		log.Info("failures are counted again", "bucket", LedgerBucket)
	}
}

// complain logs once that failures cannot be distinguished from deliveries.
func (l *ledger) complain(err error, log *slog.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return // the trigger is being closed
	}
	why := err.Error()
	if errors.Is(err, context.DeadlineExceeded) || nobodyTakes(err) || errors.Is(err, nats.ErrTimeout) {
		why = fmt.Sprintf("the bucket does not answer: it has no leader, or the account lacks a right; see nats stream info KV_%s (%v)", LedgerBucket, err)
	}
	l.troubles.Set(triggers.TroubleAttempts, fmt.Sprintf("failures cannot be counted in the key-value bucket %s, so this instance remembers its own, and counts deliveries where it cannot read: %s", LedgerBucket, why))
	if !l.said {
		l.said = true
		log.Error("failures cannot be counted: this instance remembers its own until that works, and counts deliveries where it cannot read", "bucket", LedgerBucket, "error", why)
	}
}

// forget marks the entry of a settled message for deletion by clean.
func (l *ledger) forget(m *leasedMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = append(l.gone, l.key(m))
	delete(l.owed, l.key(m))
}

// clean deletes the entries that forget has marked. It purges them from the bucket's stream,
// because deleting a key would leave a marker.
func (l *ledger) clean(ctx context.Context, log *slog.Logger) {
	l.mu.Lock()
	gone := l.gone
	l.gone = nil
	l.mu.Unlock()
	if len(gone) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	stream, err := l.js.Stream(ctx, "KV_"+LedgerBucket)
	for _, key := range gone {
		if err == nil {
			err = stream.Purge(ctx, jetstream.WithPurgeSubject("$KV."+LedgerBucket+"."+key))
		}
	}
	if err != nil {
		// The bucket deletes them after ledgerTTL at the latest.
		log.Debug("cannot remove entries of settled messages", "bucket", LedgerBucket, "error", err)
	}
}
