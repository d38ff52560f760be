// Package timerstore keeps the states of timers in a key-value bucket of NATS JetStream, which all
// instances share. An entry is changed only at the revision that was read, so one instance
// acquires a lease.
//
// The lease has no time of day, since clocks differ. Its holder writes the entry again at half of
// the term. An instance that has seen one revision for a whole term takes the lease over.
package timerstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/timer"
)

// Bucket is the name of the bucket. It is created if it is missing, with three replicas if the
// cluster can.
const Bucket = "drover-timers"

// Config is the configuration of a Store.
type Config struct {
	Group, Name string // of the deployment and the function
	Term        time.Duration
}

// Store implements timer.Store.
type Store struct {
	js    jetstream.JetStream
	key   string
	term  time.Duration
	owner string // this instance, in entries

	mu     sync.Mutex
	bucket jetstream.KeyValue // nil before the first request
	seen   uint64             // the revision of the lease of another instance
	since  time.Time          // when it was first seen
}

// entry is the value of a key.
type entry struct {
	timer.State
	Owner string        `json:"owner,omitempty"` // who has the lease; empty: nobody
	Term  time.Duration `json:"term,omitempty"`  // of the lease, in nanoseconds
}

var plainKey = regexp.MustCompile(`^[-_a-zA-Z0-9]+$`)

// New returns the store of a timer. It sends no request.
func New(c *nats.Conn, cfg Config) (*Store, error) {
	js, err := jetstream.New(c)
	if err != nil {
		return nil, fmt.Errorf("opening JetStream: %w", err)
	}
	name := cfg.Name
	if !plainKey.MatchString(name) {
		name = "=" + hex.EncodeToString([]byte(name))
	}
	return &Store{js: js, key: cfg.Group + "." + name, term: cfg.Term, owner: uuid.NewString()}, nil
}

// LeaseTerm implements timer.Store.
func (s *Store) LeaseTerm() time.Duration { return s.term }

// open returns the bucket.
func (s *Store) open(ctx context.Context) (jetstream.KeyValue, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bucket != nil {
		return s.bucket, nil
	}
	bucket, err := s.js.KeyValue(ctx, Bucket)
	for _, replicas := range []int{3, 1} {
		if !errors.Is(err, jetstream.ErrBucketNotFound) {
			break
		}
		bucket, err = s.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: Bucket, Description: "states of drover's timers, by group and function", History: 1, Storage: jetstream.FileStorage, Replicas: replicas,
		})
		if err != nil && ctx.Err() == nil { // another instance may have created it, or there are too few servers
			bucket, err = s.js.KeyValue(ctx, Bucket)
		}
	}
	if err != nil {
		return nil, describe(err)
	}
	s.bucket = bucket
	return bucket, nil
}

// describe adds advice to an error.
func describe(err error) error {
	advice := ""
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) {
		advice = "; is the server there with JetStream, and may the account use the bucket? docs/timers.md lists the subjects"
	}
	return fmt.Errorf("the key-value bucket %s: %w%s", Bucket, err, advice)
}

// isConflict reports whether a write was refused because the entry has another revision.
func isConflict(err error) bool {
	var refused *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &refused) &&
		(refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// read returns the entry and its revision; 0 if there is none.
func (s *Store) read(ctx context.Context) (e entry, revision uint64, err error) {
	bucket, err := s.open(ctx)
	if err != nil {
		return e, 0, err
	}
	got, err := bucket.Get(ctx, s.key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return e, 0, nil
	}
	if err != nil {
		return e, 0, describe(err)
	}
	if err := json.Unmarshal(got.Value(), &e); err != nil {
		return e, 0, fmt.Errorf("the entry %s of the key-value bucket %s is not drover's: %w; remove it: nats kv del %s %s", s.key, Bucket, err, Bucket, s.key)
	}
	return e, got.Revision(), nil
}

// write writes the entry if it has the revision, and returns the new one.
func (s *Store) write(ctx context.Context, e entry, revision uint64) (uint64, error) {
	bucket, err := s.open(ctx)
	if err != nil {
		return 0, err
	}
	text, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	if revision == 0 {
		revision, err = bucket.Create(ctx, s.key, text)
	} else {
		revision, err = bucket.Update(ctx, s.key, text, revision)
	}
	if err != nil {
		return 0, describe(err)
	}
	return revision, nil
}

// ReadState implements timer.Store.
func (s *Store) ReadState(ctx context.Context) (timer.State, bool, error) {
	e, revision, err := s.read(ctx)
	return e.State, err == nil && s.isHeld(e, revision), err
}

// isHeld reports whether another instance has the lease.
func (s *Store) isHeld(e entry, revision uint64) bool {
	if e.Owner == "" || e.Owner == s.owner {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision != s.seen {
		s.seen, s.since = revision, time.Now()
	}
	return time.Since(s.since) < e.Term
}

// AcquireLease implements timer.Store. An entry with this store's own name is from a write whose
// answer was lost.
func (s *Store) AcquireLease(ctx context.Context, isDue func(timer.State) bool) (timer.State, timer.Lease, error) {
	const tries = 2 // a replica may have answered the first with an earlier revision
	for try := 1; ; try++ {
		e, revision, err := s.read(ctx)
		if err != nil || !isDue(e.State) {
			return e.State, nil, err
		}
		if s.isHeld(e, revision) {
			return e.State, nil, timer.ErrLeased
		}
		e.Owner, e.Term = s.owner, s.term
		revision, err = s.write(ctx, e, revision)
		switch {
		case err == nil:
			return e.State, &held{s, e, revision}, nil
		case !isConflict(err):
			return e.State, nil, err
		case try == tries:
			return e.State, nil, timer.ErrLeased
		}
	}
}

// held implements timer.Lease.
type held struct {
	s        *Store
	e        entry
	revision uint64
}

// RenewLease implements timer.Lease.
func (h *held) RenewLease(ctx context.Context) error { return h.rewrite(ctx, h.e) }

// EndLease implements timer.Lease.
func (h *held) EndLease(ctx context.Context, state timer.State) error {
	return h.rewrite(ctx, entry{State: state})
}

// rewrite replaces the entry. After a conflict it reads the entry: an earlier write of this lease
// may have had an effect although its answer was lost.
func (h *held) rewrite(ctx context.Context, e entry) error {
	revision, err := h.s.write(ctx, e, h.revision)
	if isConflict(err) {
		now, at, readErr := h.s.read(ctx)
		switch {
		case readErr != nil:
			return readErr
		case now.Owner == "" && e.Owner == "" && now.Updated.Equal(e.Updated):
			return nil // it had
		case now.Owner != h.s.owner:
			return fmt.Errorf("another instance has the timer: %w", lease.ErrLost)
		}
		revision, err = h.s.write(ctx, e, at)
		if isConflict(err) {
			return fmt.Errorf("another instance has the timer: %w", lease.ErrLost)
		}
	}
	if err == nil {
		h.revision = revision
	}
	return err
}
