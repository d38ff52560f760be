package natsjs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
)

const (
	// maxSearched bounds the messages that a search for a sender's ID reads, and searchLimit its
	// duration: each message is a round trip.
	maxSearched = 1000
	searchLimit = time.Second
)

// Find implements triggers.Finder. If the ID does not contain the message's sequence, Find
// searches the first unsettled messages of the stream.
func (t *trigger) Find(ctx context.Context, id string) (triggers.Found, error) {
	t.mu.Lock()
	consumer := t.consumer
	for l := t.leases.ring.next; l != &t.leases.ring; l = l.next {
		if l.message.ID == id {
			t.mu.Unlock()
			return triggers.Found{Place: triggers.PlaceHeld, Ahead: -1, Failures: l.message.Attempt - 1, Enqueued: l.message.Enqueued}, nil
		}
	}
	t.mu.Unlock()
	if consumer == nil {
		return triggers.Found{}, fmt.Errorf("consumer %s of stream %s is gone: %w", t.cfg.Consumer, t.cfg.Stream, triggers.ErrUnsearchable)
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
	found := triggers.Found{Ahead: -1, Enqueued: m.Time, Failures: t.ledger.failures(ctx, m.Sequence, m.Time, info.Created)}
	if info.Config.MaxDeliver > 0 {
		found.Note = spentNote(t.cfg.Consumer, info.Config.MaxDeliver)
	}
	switch {
	case m.Sequence > info.Delivered.Stream:
		found.Place = triggers.PlaceReady
		if takesAll(info.Config, stream.CachedInfo().Config.Subjects) {
			found.Ahead = int64(m.Sequence - info.Delivered.Stream - 1)
		}
	case m.Sequence <= spentUpTo(stream.CachedInfo().Config, info):
		found.Place = triggers.PlaceSpent
	case m.Sequence <= info.AckFloor.Stream:
		found.Place = triggers.PlaceDone
	default:
		found.Place = triggers.PlaceLeased // or settled, behind an unsettled one
	}
	return found, nil
}

// takesAll reports whether a consumer gets all messages of its stream.
func takesAll(c jetstream.ConsumerConfig, subjects []string) bool {
	return len(c.FilterSubjects) == 0 && (c.FilterSubject == "" || len(subjects) == 1 && subjects[0] == c.FilterSubject)
}

// search returns the consumer's message with an ID. It tries the ID as a place in the stream
// first. If that yields no message, or a settled one, it searches the headers.
func (t *trigger) search(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo, id string) (*jetstream.RawStreamMsg, error) {
	at, err := t.atPlace(ctx, stream, info, id)
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, err
	}
	if at != nil && at.Sequence > info.AckFloor.Stream {
		return at, nil
	}
	named, err := t.named(ctx, stream, info, id)
	if at != nil && errors.Is(err, jetstream.ErrMsgNotFound) {
		return at, nil
	}
	return named, err
}

// atPlace returns the message whose ID contains its sequence.
func (t *trigger) atPlace(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo, id string) (*jetstream.RawStreamMsg, error) {
	number, found := strings.CutPrefix(id, t.cfg.Stream+":")
	sequence, err := strconv.ParseUint(number, 10, 64)
	if !found || err != nil {
		return nil, jetstream.ErrMsgNotFound
	}
	m, err := stream.GetMsg(ctx, sequence)
	if err != nil {
		return nil, err
	}
	if !takes(info.Config, m.Subject) { // it belongs to another consumer
		return nil, jetstream.ErrMsgNotFound
	}
	return m, nil
}

// named searches for a message with an ID in its headers.
func (t *trigger) named(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo, id string) (*jetstream.RawStreamMsg, error) {
	filter := info.Config.FilterSubject
	if filter == "" {
		filter = ">"
	}
	began, next := time.Now(), info.AckFloor.Stream+1
	for n := 0; n < maxSearched && time.Since(began) < searchLimit; n++ {
		m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(filter))
		if err != nil {
			return nil, err
		}
		if nameOf(m.Header) == id && takes(info.Config, m.Subject) {
			return m, nil
		}
		next = m.Sequence + 1
	}
	return nil, jetstream.ErrMsgNotFound
}

// takes reports whether a consumer gets messages of a subject.
func takes(c jetstream.ConsumerConfig, subject string) bool {
	of := filtersOf(c)
	return len(of) == 0 || slices.ContainsFunc(of, func(filter string) bool { return server.SubjectsCollide(subject, filter) })
}

// failures returns the failures that the ledger has recorded for a message; negative if it cannot
// be read.
func (l *ledger) failures(ctx context.Context, sequence uint64, enqueued, created time.Time) int {
	bucket, err := l.js.KeyValue(ctx, LedgerBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return 0
	}
	if err != nil {
		return -1
	}
	key := fmt.Sprint(l.prefix, sequence)
	owed := l.owes(key, enqueued, created)
	entry, err := bucket.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return owed
	}
	if err != nil {
		return -1
	}
	return max(failuresIn(entry.Value(), enqueued, created), owed)
}
