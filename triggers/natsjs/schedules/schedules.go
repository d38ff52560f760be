// Package schedules schedules NATS messages. The server holds them, from version 2.12 on: a stream with
// allow_msg_schedules keeps each scheduled message under a separate subject, and publishes it to its
// target at the time in its header.
//
// Senders use a Planner. It changes only streams that drover created.
package schedules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers/natsjs/consumers"
)

const (
	// suffix follows the name of the stream in the subjects of its schedules.
	suffix = "-SCHEDULED"
	// apiLevel is the level of the JetStream API that has message schedules.
	apiLevel = 2
	// timerHeader and targetHeader tell the server when a message is due, and its subject then.
	timerHeader  = "Nats-Schedule"
	targetHeader = "Nats-Schedule-Target"
)

// Planner turns messages into schedules. It reads the settings of each stream once. It is for one
// goroutine.
type Planner struct {
	js     jetstream.JetStream
	places map[string]place // by the subject of the messages
}

// place is the stream that keeps the schedules of a subject.
type place struct {
	stream string
	maxAge time.Duration // how long the stream keeps a message; 0: no limit
}

// NewPlanner returns a Planner.
func NewPlanner(js jetstream.JetStream) *Planner {
	return &Planner{js: js, places: make(map[string]place)}
}

// Delay changes a message so that the server holds it until a time. The caller publishes it. The
// error wraps jetstream.ErrStreamNotFound if no stream has its subject.
func (p *Planner) Delay(ctx context.Context, m *nats.Msg, until time.Time) error {
	at, known := p.places[m.Subject]
	if !known {
		var err error
		if at, err = p.prepare(ctx, m.Subject); err != nil {
			return err
		}
		p.places[m.Subject] = at
	}
	if at.maxAge > 0 && time.Until(until) >= at.maxAge {
		return fmt.Errorf("%s is too far ahead: the stream %s deletes messages after %v (max_age)", until.Format(time.RFC3339), at.stream, at.maxAge)
	}
	if m.Header == nil {
		m.Header = make(nats.Header, 2)
	}
	m.Header.Set(timerHeader, "@at "+until.UTC().Format(time.RFC3339Nano))
	m.Header.Set(targetHeader, m.Subject)
	m.Subject = at.stream + suffix + "." + uuid.NewString()
	return nil
}

// IsHeld reports whether a message with this header is a schedule that the server holds.
func IsHeld(h nats.Header) bool { return len(h[timerHeader]) > 0 }

// prepare finds the stream of a subject, and enables schedules if drover created it.
func (p *Planner) prepare(ctx context.Context, subject string) (place, error) {
	name, err := p.js.StreamNameBySubject(ctx, subject)
	if err != nil {
		return place{}, fmt.Errorf("finding the stream of %s: %w", subject, err)
	}
	stream, err := p.js.Stream(ctx, name)
	if err != nil {
		return place{}, fmt.Errorf("reading the stream %s: %w", name, err)
	}
	cfg := stream.CachedInfo().Config
	if cfg.Retention == jetstream.InterestPolicy {
		return place{}, fmt.Errorf("the stream %s has the retention policy interest, which drops scheduled messages; use limits or workqueue", name)
	}
	if err := checkConsumers(ctx, stream, name+suffix+".x"); err != nil {
		return place{}, err
	}
	if !cfg.AllowMsgSchedules || !takes(cfg.Subjects, name+suffix+".x") {
		if err := p.enable(ctx, cfg); err != nil {
			return place{}, err
		}
	}
	return place{name, cfg.MaxAge}, nil
}

// checkConsumers returns an error if a consumer would receive the schedules as messages.
func checkConsumers(ctx context.Context, stream jetstream.Stream, subject string) error {
	all := stream.ListConsumers(ctx)
	for c := range all.Info() {
		if consumers.Takes(c.Config, subject) {
			return fmt.Errorf("the consumer %s of the stream %s has no filter subject, so it would receive messages before they are due; set one", c.Name, c.Stream)
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("reading the consumers of a stream: %w", err)
	}
	return nil
}

func takes(subjects []string, subject string) bool {
	return slices.ContainsFunc(subjects, func(s string) bool { return server.SubjectsCollide(s, subject) })
}

// enable allows schedules in a stream that drover created. For other streams the error shows the command.
func (p *Planner) enable(ctx context.Context, cfg jetstream.StreamConfig) error {
	if account, err := p.js.AccountInfo(ctx); err == nil && account.API.Level < apiLevel { // without permission to read this, the server refuses the schedule later
		return fmt.Errorf("the server is too old to schedule messages: this needs nats-server 2.12 (JetStream API level %d; the server has level %d)", apiLevel, account.API.Level)
	}
	if all := cfg.Name + suffix + ".>"; !takes(cfg.Subjects, cfg.Name+suffix+".x") {
		cfg.Subjects = append(slices.Clone(cfg.Subjects), all)
	}
	cfg.AllowMsgSchedules = true
	if !consumers.IsOwn(cfg.Description) {
		return fmt.Errorf("the stream %s does not allow scheduled messages; allow them with: nats stream edit %s --allow-schedules --subjects %q",
			cfg.Name, cfg.Name, strings.Join(cfg.Subjects, ","))
	}
	cfg.AllowRollup, cfg.DenyPurge = true, false // the server requires this
	updated, err := p.js.UpdateStream(ctx, cfg)
	if err != nil {
		return fmt.Errorf("enabling message schedules of the stream %s: %w", cfg.Name, err)
	}
	if !updated.CachedInfo().Config.AllowMsgSchedules {
		return errors.New("the server is too old to schedule messages: this needs nats-server 2.12")
	}
	return nil
}
