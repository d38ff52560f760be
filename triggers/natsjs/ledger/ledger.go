// Package ledger counts the failures of messages in a key-value bucket. The server's own count is
// of deliveries, which are more. A message that never failed has no entry.
//
// A trigger has one Ledger. It reads the failures of a redelivered message, writes them at a verdict,
// and calls Maintain regularly. Nothing needs to be closed.
package ledger

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
	"github.com/drover-run/drover/triggers/natsjs/client"
)

// bucketName is the key-value bucket.
const bucketName = client.AttemptsBucket

// entryTTL is how long an entry is kept if it is not deleted.
const entryTTL = 30 * 24 * time.Hour

// Ledger counts the failures of one consumer's messages. Any goroutine may call its methods.
type Ledger struct {
	conn     *client.Connection
	stream   string // the stream of the counted messages
	prefix   string
	troubles *triggers.Troubles
	log      *slog.Logger

	mu     sync.Mutex
	bucket jetstream.KeyValue
	said   bool             // that the bucket cannot be used was logged
	gone   []string         // keys of settled messages
	owed   map[string]count // counts that the bucket refused, by key
}

// Message identifies a message. The times distinguish it from those with its sequence in an earlier
// stream or consumer: a recreated one counts from 1 again.
type Message struct {
	Sequence uint64
	Enqueued time.Time
	Created  time.Time // of the consumer
}

// count is the number of failures of a message.
type count struct {
	failures int
	of       Message
}

// maxOwed bounds the counts that wait to be written to the bucket.
const maxOwed = 1 << 16

var plainKey = regexp.MustCompile(`^[-_=a-zA-Z0-9]+$`)

// New returns the ledger of a consumer. While failures cannot be counted, it reports
// triggers.TroubleAttempts in troubles.
func New(c *client.Connection, stream, consumer string, troubles *triggers.Troubles, log *slog.Logger) *Ledger {
	name := func(s string) string {
		if plainKey.MatchString(s) {
			return s
		}
		return "=" + hex.EncodeToString([]byte(s))
	}
	return &Ledger{conn: c, stream: stream, prefix: name(stream) + "." + name(consumer) + ".", troubles: troubles, log: log}
}

func (l *Ledger) keyOf(m Message) string { return fmt.Sprint(l.prefix, m.Sequence) }

// Subject returns the subject of a sequence's entry in the bucket's stream.
func (l *Ledger) Subject(sequence uint64) string {
	return fmt.Sprint("$KV.", bucketName, ".", l.prefix, sequence)
}

// bucketNote begins the bucket's description.
const bucketNote = "how often messages have failed"

// RaiseReplicas raises the replicas of the bucket to those of the stream.
func (l *Ledger) RaiseReplicas(ctx context.Context) {
	l.conn.RaiseReplicas(ctx, l.stream, "KV_"+bucketName, bucketNote, l.log)
}

// openBucket returns the bucket, and creates it if it does not exist.
func (l *Ledger) openBucket(ctx context.Context) (jetstream.KeyValue, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bucket != nil {
		return l.bucket, nil
	}
	bucket, err := l.conn.JetStream().KeyValue(ctx, bucketName)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		bucket, err = l.conn.JetStream().CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: bucketName, Description: bucketNote + ", by stream, consumer and sequence",
			TTL: entryTTL, History: 1, Storage: jetstream.FileStorage, Replicas: l.conn.CountReplicas(ctx, l.stream),
		})
	}
	if err != nil {
		return nil, fmt.Errorf("opening the key-value bucket %s: %w", bucketName, err)
	}
	l.bucket = bucket
	return bucket, nil
}

// entryOf returns the text of an entry: the failures, when the message was enqueued, and when the
// consumer was created.
func entryOf(failures int, m Message) []byte {
	return fmt.Append(nil, failures, m.Enqueued.UnixNano(), m.Created.UnixNano())
}

// failuresIn parses an entry; it returns 0 if the entry is of another message. Entries of older
// versions do not have the time of the consumer.
func failuresIn(entry []byte, m Message) int {
	var failures int
	var message, consumer int64
	n, _ := fmt.Sscan(string(entry), &failures, &message, &consumer)
	if n < 2 || message != m.Enqueued.UnixNano() || n == 3 && consumer != m.Created.UnixNano() {
		return 0
	}
	return failures
}

// Read returns the number of failures of a message. If the bucket cannot be read, it returns the
// number of earlier deliveries, which is never lower, so that a message that always fails is
// eventually dead-lettered. A readable bucket may still refuse writes: every server of a cluster
// answers reads, but only the leader accepts writes.
func (l *Ledger) Read(ctx context.Context, m Message, deliveries uint64) int {
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
	defer cancel()
	bucket, err := l.openBucket(ctx)
	if err == nil {
		var failures int
		if failures, err = l.readFrom(ctx, bucket, m); err == nil {
			l.recordWorking()
			return failures
		}
	}
	l.recordFailing(err)
	return int(deliveries) - 1
}

// Find returns the number of failures of a message, as Read does, but creates no bucket. It returns
// -1 if the bucket cannot be read.
func (l *Ledger) Find(ctx context.Context, m Message) int {
	bucket, err := l.conn.JetStream().KeyValue(ctx, bucketName)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return 0
	}
	if err == nil {
		var failures int
		if failures, err = l.readFrom(ctx, bucket, m); err == nil {
			return failures
		}
	}
	return -1
}

// readFrom returns the failures of a message in the bucket, or those that are not yet written to
// it.
func (l *Ledger) readFrom(ctx context.Context, bucket jetstream.KeyValue, m Message) (failures int, err error) {
	entry, err := bucket.Get(ctx, l.keyOf(m))
	if err == nil {
		failures = failuresIn(entry.Value(), m)
	} else if !errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.owed[l.keyOf(m)]; c.of.Enqueued.Equal(m.Enqueued) && c.of.Created.Equal(m.Created) {
		failures = max(failures, c.failures)
	}
	return failures, nil
}

// Write records the number of failures of a message. A count that the bucket refuses is kept here,
// and written by Maintain.
func (l *Ledger) Write(ctx context.Context, m Message, failures int) {
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
	defer cancel()
	key, c := l.keyOf(m), count{failures, m}
	bucket, err := l.openBucket(ctx)
	if err == nil {
		_, err = bucket.Put(ctx, key, entryOf(failures, m))
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
		l.recordFailing(err)
		return
	}
	l.recordWorking()
}

// Maintain writes the counts that the bucket refused before, and deletes the entries of settled
// messages. It is called about once a second.
func (l *Ledger) Maintain(ctx context.Context) {
	l.writeOwed(ctx)
	l.deleteSettled(ctx)
}

// writeOwed writes the counts that the bucket refused before.
func (l *Ledger) writeOwed(ctx context.Context) {
	l.mu.Lock()
	owed, said := maps.Clone(l.owed), l.said
	l.mu.Unlock()
	if len(owed) == 0 && !said {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second) // the caller tries again soon
	defer cancel()
	bucket, err := l.openBucket(ctx)
	if err == nil && len(owed) == 0 { // all these messages are settled
		_, err = bucket.Status(ctx) // only a leader answers
	}
	for key, c := range owed {
		if err != nil {
			break
		}
		// Another instance may have counted since. The sequence may also belong to another message now.
		if _, err = bucket.Create(ctx, key, entryOf(c.failures, c.of)); errors.Is(err, jetstream.ErrKeyExists) {
			var entry jetstream.KeyValueEntry
			if entry, err = bucket.Get(ctx, key); err == nil {
				if has := failuresIn(entry.Value(), c.of); has > 0 && has < c.failures {
					_, err = bucket.Update(ctx, key, entryOf(c.failures, c.of), entry.Revision())
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
		l.log.Debug("cannot write counts of failures yet", "bucket", bucketName, "error", err)
		return
	}
	l.recordWorking()
}

// recordWorking records that the bucket works. It clears the trouble when all counts are written.
func (l *Ledger) recordWorking() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.said && len(l.owed) == 0 {
		l.said = false
		l.troubles.Clear(triggers.TroubleAttempts)
		l.log.Info("failures are counted again", "bucket", bucketName)
	}
}

// recordFailing logs once that failures cannot be distinguished from deliveries, and sets the trouble.
func (l *Ledger) recordFailing(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return // the trigger is being closed
	}
	why := err.Error()
	if errors.Is(err, context.DeadlineExceeded) || client.NobodyTakes(err) || errors.Is(err, nats.ErrTimeout) {
		why = fmt.Sprintf("the bucket does not answer: it has no leader, or the account lacks a right; see nats stream info KV_%s (%v)", bucketName, err)
	}
	l.troubles.Set(triggers.TroubleAttempts, fmt.Sprintf("failures cannot be counted in the key-value bucket %s, so this instance remembers its own, and counts deliveries where it cannot read: %s", bucketName, why))
	if !l.said {
		l.said = true
		l.log.Error("failures cannot be counted: this instance remembers its own until that works, and counts deliveries where it cannot read", "bucket", bucketName, "error", why)
	}
}

// MarkSettled has Maintain delete the entry of a settled message.
func (l *Ledger) MarkSettled(m Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = append(l.gone, l.keyOf(m))
	delete(l.owed, l.keyOf(m))
}

// deleteSettled purges the entries of settled messages from the bucket's stream, because deleting
// a key would leave a marker.
func (l *Ledger) deleteSettled(ctx context.Context) {
	l.mu.Lock()
	gone := l.gone
	l.gone = nil
	l.mu.Unlock()
	if len(gone) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
	defer cancel()
	stream, err := l.conn.JetStream().Stream(ctx, "KV_"+bucketName)
	for _, key := range gone {
		if err == nil {
			err = stream.Purge(ctx, jetstream.WithPurgeSubject("$KV."+bucketName+"."+key))
		}
	}
	if err != nil {
		// The bucket deletes them after entryTTL at the latest.
		l.log.Debug("cannot remove entries of settled messages", "bucket", bucketName, "error", err)
	}
}
