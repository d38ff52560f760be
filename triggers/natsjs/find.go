package natsjs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
)

const (
	// findLimit bounds a search.
	findLimit = 5 * time.Second
	// maxSearched is how many messages of a stream are looked at for one that was
	// named by its sender.
	maxSearched = 1000
)

// Find implements triggers.Finder. A message whose id is not its place in the stream is
// looked for among the first that are not done.
func (t *trigger) Find(ctx context.Context, id string) (triggers.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	t.mu.Lock()
	consumer := t.consumer
	t.mu.Unlock()
	if consumer == nil {
		return triggers.Found{}, triggers.ErrUnknown
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return triggers.Found{}, fmt.Errorf("asking for consumer %s of stream %s: %w", t.cfg.Consumer, t.cfg.Stream, err)
	}
	stream, err := t.conn.js.Stream(ctx, t.cfg.Stream)
	if err != nil {
		return triggers.Found{}, fmt.Errorf("asking for stream %s: %w", t.cfg.Stream, err)
	}
	m, err := t.search(ctx, stream, info, id)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return triggers.Found{}, triggers.ErrNotFound
	}
	if err != nil {
		return triggers.Found{}, fmt.Errorf("looking for message %s in stream %s: %w", id, t.cfg.Stream, err)
	}
	found := triggers.Found{Ahead: -1, Enqueued: m.Time, Failures: t.ledger.failures(ctx, m.Sequence, m.Time)}
	switch {
	case m.Sequence > info.Delivered.Stream:
		found.Place = triggers.PlaceReady
		if takesAll(info.Config, stream.CachedInfo().Config.Subjects) {
			found.Ahead = int64(m.Sequence - info.Delivered.Stream - 1)
		}
	case m.Sequence <= info.AckFloor.Stream:
		found.Place = triggers.PlaceDone
	default:
		found.Place = triggers.PlaceLent // or done, before others that are not
	}
	return found, nil
}

// takesAll reports whether a consumer gets all that its stream has.
func takesAll(c jetstream.ConsumerConfig, subjects []string) bool {
	return len(c.FilterSubjects) == 0 && (c.FilterSubject == "" || len(subjects) == 1 && subjects[0] == c.FilterSubject)
}

func (t *trigger) search(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo, id string) (*jetstream.RawStreamMsg, error) {
	if number, found := strings.CutPrefix(id, t.cfg.Stream+":"); found {
		if sequence, err := strconv.ParseUint(number, 10, 64); err == nil {
			return stream.GetMsg(ctx, sequence)
		}
	}
	filter := info.Config.FilterSubject
	if filter == "" {
		filter = ">"
	}
	next := info.AckFloor.Stream + 1
	for range maxSearched {
		m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(filter))
		if err != nil {
			return nil, err
		}
		if m.Header.Get(jetstream.MsgIDHeader) == id {
			return m, nil
		}
		next = m.Sequence + 1
	}
	return nil, jetstream.ErrMsgNotFound
}

// failures is what the ledger has on a message; negative if it cannot be read.
func (l *ledger) failures(ctx context.Context, sequence uint64, enqueued time.Time) int {
	bucket, err := l.js.KeyValue(ctx, LedgerBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return 0
	}
	if err != nil {
		return -1
	}
	entry, err := bucket.Get(ctx, fmt.Sprint(l.prefix, sequence))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0
	}
	if err != nil {
		return -1
	}
	var n int
	var at int64
	if _, err := fmt.Sscan(string(entry.Value()), &n, &at); err != nil || at != enqueued.UnixNano() {
		return 0
	}
	return n
}
