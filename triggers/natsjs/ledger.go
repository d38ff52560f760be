package natsjs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// LedgerBucket is the key-value bucket in which failures are counted: the server
// counts deliveries, which is more. A message that never failed has no entry.
const LedgerBucket = "drover-attempts"

// ledgerTTL is how long an entry is kept if nobody removes it.
const ledgerTTL = 30 * 24 * time.Hour

// ledger counts the failures of one consumer's messages.
type ledger struct {
	js     jetstream.JetStream
	prefix string

	mu     sync.Mutex
	bucket jetstream.KeyValue
	said   bool     // that it can't be used
	gone   []string // keys whose messages are settled
}

var plainKey = regexp.MustCompile(`^[-_=a-zA-Z0-9]+$`)

func newLedger(js jetstream.JetStream, cfg Config) *ledger {
	name := func(s string) string {
		if plainKey.MatchString(s) {
			return s
		}
		return "=" + hex.EncodeToString([]byte(s))
	}
	return &ledger{js: js, prefix: name(cfg.Stream) + "." + name(cfg.Consumer) + "."}
}

func (l *ledger) key(m *loan) string { return fmt.Sprint(l.prefix, m.sequence) }

// open finds the bucket, or makes it.
func (l *ledger) open(ctx context.Context) (jetstream.KeyValue, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bucket != nil {
		return l.bucket, nil
	}
	bucket, err := l.js.KeyValue(ctx, LedgerBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		bucket, err = l.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: LedgerBucket, Description: "how often messages have failed, by stream, consumer and sequence",
			TTL: ledgerTTL, History: 1, Storage: jetstream.FileStorage,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("opening the key-value bucket %s: %w", LedgerBucket, err)
	}
	l.bucket = bucket
	return bucket, nil
}

// get returns how often a message has failed. Where the ledger can't be read it
// is the number of deliveries before this one, which is more, not less: a
// message that always fails must come to an end.
func (l *ledger) get(ctx context.Context, m *loan, log *slog.Logger) int {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	bucket, err := l.open(ctx)
	if err == nil {
		var entry jetstream.KeyValueEntry
		entry, err = bucket.Get(ctx, l.key(m))
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return 0
		}
		if err == nil {
			var failures int
			var enqueued int64
			// A stream that was made anew counts from 1 again: the time tells.
			if _, err := fmt.Sscan(string(entry.Value()), &failures, &enqueued); err != nil || enqueued != m.message.Enqueued.UnixNano() {
				return 0
			}
			return failures
		}
	}
	l.complain(err, log)
	return int(m.deliveries) - 1
}

// put writes how often a message has failed.
func (l *ledger) put(ctx context.Context, m *loan, failures int, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	bucket, err := l.open(ctx)
	if err == nil {
		_, err = bucket.Put(ctx, l.key(m), fmt.Append(nil, failures, m.message.Enqueued.UnixNano()))
	}
	if err != nil {
		l.complain(err, log)
	}
}

// complain says once that failures can't be told from deliveries.
func (l *ledger) complain(err error, log *slog.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.said {
		l.said = true
		log.Error("failures can't be counted, so deliveries count as attempts until it works; may this account make and use the bucket?", "error", err)
	}
}

// forget removes a settled message's entry, some time later.
func (l *ledger) forget(m *loan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = append(l.gone, l.key(m))
}

// clean removes what was forgotten. It purges the bucket's stream, since a
// deleted key would leave a marker.
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
		// They are gone after ledgerTTL at the latest.
		log.Debug("cannot remove entries of settled messages", "bucket", LedgerBucket, "error", err)
	}
}
