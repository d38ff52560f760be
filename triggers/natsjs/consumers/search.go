package consumers

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
	"github.com/drover-run/drover/triggers/natsjs/convert"
)

const (
	// maxSearched bounds the messages that a search for a sender's ID reads, and searchLimit its
	// duration: each message is a round trip.
	maxSearched = 1000
	searchLimit = time.Second
)

// Find returns where a message of the consumer is at the server, without its failures, and its
// sequence. If the ID does not contain the message's sequence, Find searches the first unsettled
// messages of the stream. The error wraps triggers.ErrNotFound if there is no such message.
func Find(ctx context.Context, js jetstream.JetStream, info *jetstream.ConsumerInfo, id string) (triggers.Found, uint64, error) {
	stream, err := js.Stream(ctx, info.Stream)
	if err != nil {
		return triggers.Found{}, 0, fmt.Errorf("asking for stream %s: %w", info.Stream, err)
	}
	m, err := search(ctx, stream, info, id)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return triggers.Found{}, 0, triggers.ErrNotFound
	}
	if err != nil {
		return triggers.Found{}, 0, fmt.Errorf("searching for message %s in stream %s: %w", id, info.Stream, err)
	}
	found := triggers.Found{Ahead: -1, Enqueued: m.Time}
	switch {
	case m.Sequence > info.Delivered.Stream:
		found.Place = triggers.PlaceReady
		if takesAll(info.Config, stream.CachedInfo().Config.Subjects) {
			found.Ahead = int64(m.Sequence - info.Delivered.Stream - 1)
		}
	case m.Sequence <= SpentUpTo(stream.CachedInfo().Config, info):
		found.Place = triggers.PlaceSpent
	case m.Sequence <= info.AckFloor.Stream:
		found.Place = triggers.PlaceDone
	default:
		found.Place = triggers.PlaceLeased // or settled, behind an unsettled one
	}
	return found, m.Sequence, nil
}

// SpentUpTo returns the sequence up to which all messages of a work queue are settled or given up;
// 0 if that is unknown.
func SpentUpTo(stream jetstream.StreamConfig, info *jetstream.ConsumerInfo) uint64 {
	switch {
	case stream.Retention != jetstream.WorkQueuePolicy || info.Config.MaxDeliver <= 0:
		return 0
	case info.NumAckPending == 0:
		return info.Delivered.Stream
	}
	return info.AckFloor.Stream
}

// Oldest returns when the first undelivered message of a stream was enqueued; zero if that cannot
// be read.
func Oldest(ctx context.Context, js jetstream.JetStream, info *jetstream.ConsumerInfo) time.Time {
	stream, err := js.Stream(ctx, info.Stream)
	if err != nil {
		return time.Time{}
	}
	m, err := stream.GetMsg(ctx, info.Delivered.Stream+1, WithFilter(info.Config))
	if err != nil {
		return time.Time{}
	}
	return m.Time
}

// WithFilter has the server skip messages that a consumer does not get. If the consumer has several
// filters, it skips none: see Takes.
func WithFilter(c jetstream.ConsumerConfig) jetstream.GetMsgOpt {
	if c.FilterSubject == "" {
		return jetstream.WithGetMsgSubject(">")
	}
	return jetstream.WithGetMsgSubject(c.FilterSubject)
}

// Takes reports whether a consumer gets messages of a subject.
func Takes(c jetstream.ConsumerConfig, subject string) bool {
	of := filtersOf(c)
	return len(of) == 0 || slices.ContainsFunc(of, func(filter string) bool { return server.SubjectsCollide(subject, filter) })
}

func filtersOf(c jetstream.ConsumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return c.FilterSubjects
}

// takesAll reports whether a consumer gets all messages of its stream.
func takesAll(c jetstream.ConsumerConfig, subjects []string) bool {
	return len(c.FilterSubjects) == 0 && (c.FilterSubject == "" || len(subjects) == 1 && subjects[0] == c.FilterSubject)
}

// search returns the consumer's message with an ID. It tries the ID as a place in the stream
// first. If that yields no message, or a settled one, it searches the headers.
func search(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo, id string) (*jetstream.RawStreamMsg, error) {
	at, err := atPlace(ctx, stream, info, id)
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, err
	}
	if at != nil && at.Sequence > info.AckFloor.Stream {
		return at, nil
	}
	named, err := byHeader(ctx, stream, info, id)
	if at != nil && errors.Is(err, jetstream.ErrMsgNotFound) {
		return at, nil
	}
	return named, err
}

// atPlace returns the message whose ID contains its sequence.
func atPlace(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo, id string) (*jetstream.RawStreamMsg, error) {
	number, found := strings.CutPrefix(id, info.Stream+":")
	sequence, err := strconv.ParseUint(number, 10, 64)
	if !found || err != nil {
		return nil, jetstream.ErrMsgNotFound
	}
	m, err := stream.GetMsg(ctx, sequence)
	if err != nil {
		return nil, err
	}
	if !Takes(info.Config, m.Subject) { // it belongs to another consumer
		return nil, jetstream.ErrMsgNotFound
	}
	return m, nil
}

// byHeader searches for a message with an ID in its headers.
func byHeader(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo, id string) (*jetstream.RawStreamMsg, error) {
	began, next := time.Now(), info.AckFloor.Stream+1
	for n := 0; n < maxSearched && time.Since(began) < searchLimit; n++ {
		m, err := stream.GetMsg(ctx, next, WithFilter(info.Config))
		if err != nil {
			return nil, err
		}
		if convert.IDOf(m.Header) == id && Takes(info.Config, m.Subject) {
			return m, nil
		}
		next = m.Sequence + 1
	}
	return nil, jetstream.ErrMsgNotFound
}
