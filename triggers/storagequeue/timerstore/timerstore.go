// Package timerstore keeps the state of a timer in its own storage queue, whose only message
// is hidden until the timer is due. The instance that receives it runs the timer, and renews the
// message's lease meanwhile. No blobs are used.
package timerstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/drover-run/drover/triggers/storagequeue"
	"github.com/drover-run/drover/triggers/timer"
)

// Config is the configuration of a Store.
type Config struct {
	Account     *storagequeue.Account
	Group, Name string // of the deployment and the function
	Lease       time.Duration
	Log         *slog.Logger
}

// Store implements timer.Store.
type Store struct {
	single *storagequeue.Single
	queue  string
	lease  time.Duration
	log    *slog.Logger
}

const (
	prefix = "drover-timers-"
	// maxName bounds the function's part of a queue's name, which has 63 characters at most. The
	// group has up to 24. A name that does not fit is cut to cutName, before a hash.
	maxName = 24
	cutName = 15
	hashed  = 4 // bytes
)

var (
	queueName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	unfit     = regexp.MustCompile(`[^a-z0-9]+`)
)

// QueueName returns the name of a timer's queue: drover-timers-GROUP-FUNCTION. A function's name
// that cannot be a part of it is changed, and a hash is added.
func QueueName(group, function string) string {
	name := function
	if len(name) > maxName || !queueName.MatchString(name) {
		hash := sha256.Sum256([]byte(function))
		name = strings.Trim(unfit.ReplaceAllString(strings.ToLower(name), "-"), "-")
		name = strings.Trim(name[:min(len(name), cutName)]+"-"+hex.EncodeToString(hash[:hashed]), "-")
	}
	return prefix + group + "-" + name
}

// New returns the store of a timer. It sends no request. The queue is created when it is needed.
func New(cfg Config) (*Store, error) {
	s := &Store{queue: QueueName(cfg.Group, cfg.Name), lease: cfg.Lease, log: cfg.Log}
	var err error
	s.single, err = storagequeue.NewSingle(storagequeue.SingleConfig{Account: cfg.Account, Queue: s.queue, Lease: cfg.Lease, Log: cfg.Log})
	return s, err
}

// LeaseTerm implements timer.Store.
func (s *Store) LeaseTerm() time.Duration { return s.lease }

// parse returns the state in a message. A damaged one counts as none.
func (s *Store) parse(text string) (state timer.State) {
	if text == "" {
		return state
	}
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		s.log.Warn("the state of the timer is damaged; an occurrence that was missed is not made up for", "queue", s.queue, "error", err)
		return timer.State{}
	}
	return state
}

// ReadState implements timer.Store. The state cannot be read while the message is hidden.
func (s *Store) ReadState(ctx context.Context) (timer.State, bool, error) {
	text, hidden, err := s.single.ReadSingle(ctx)
	return s.parse(text), hidden, err
}

// AcquireLease implements timer.Store. A message that is hidden because the timer is not due counts
// as leased.
func (s *Store) AcquireLease(ctx context.Context, isDue func(timer.State) bool) (timer.State, timer.Lease, error) {
	got, err := s.single.HoldSingle(ctx)
	if err != nil {
		return timer.State{}, nil, err
	}
	if got == nil {
		return timer.State{}, nil, timer.ErrLeased
	}
	state := s.parse(got.Text())
	if h := (held{got}); isDue(state) {
		return state, h, nil
	}
	return state, nil, held{got}.EndLease(ctx, state)
}

// held implements timer.Lease.
type held struct{ *storagequeue.HeldSingle }

// EndLease implements timer.Lease. It hides the message until the timer is due.
func (h held) EndLease(ctx context.Context, state timer.State) error {
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encoding the state of the timer: %w", err)
	}
	return h.HeldSingle.EndLease(ctx, string(text), max(time.Until(state.NextDue()), 0))
}
