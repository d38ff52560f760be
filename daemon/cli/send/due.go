package send

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/triggers"
)

// Due is when messages can be received: at a time, or a delay after each is sent. The zero value
// means at once.
type Due struct {
	At    time.Time
	Delay time.Duration
}

// ParseDue reads the flags --at and --delay. An error is a mistake in the command line.
func ParseDue(at string, delay time.Duration) (d Due, err error) {
	switch {
	case at != "" && delay != 0:
		return d, errors.New("give --at or --delay, not both")
	case delay < 0:
		return d, errors.New("--delay must not be negative")
	case at != "":
		if d.At, err = time.Parse(time.RFC3339, at); err != nil {
			return d, fmt.Errorf("--at is %q; write it as 2026-01-31T08:00:00Z, or use \"$(date -d 'tomorrow 08:00' -Iseconds)\"", at)
		}
	}
	d.Delay = delay
	return d, nil
}

// IsNow reports whether messages can be received at once.
func (d Due) IsNow() bool { return d == Due{} }

// From returns the time for a message that is sent now.
func (d Due) From(now time.Time) time.Time {
	if d.At.IsZero() {
		return now.Add(d.Delay)
	}
	return d.At
}

// Check returns an error if the source cannot hold messages that long, or drops them before. ttl is
// their time to live, nil for the default.
func (d Due) Check(accepts sources.Accepts, ttl *time.Duration) error {
	if d.IsNow() {
		return nil
	}
	now := time.Now()
	due, flag := d.From(now), "--delay"
	if !d.At.IsZero() {
		flag = "--at"
	}
	if err := accepts.CheckTime(due, now); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	if wait := due.Sub(now).Round(time.Second); ttl != nil && *ttl > 0 && wait >= *ttl {
		return fmt.Errorf("%s: the messages would expire after %v (--ttl), before they can be received, after %v", flag, *ttl, wait)
	}
	return nil
}

// String ends a sentence about messages that were sent.
func (d Due) String() string {
	switch {
	case d.IsNow():
		return ""
	case d.At.IsZero():
		return fmt.Sprintf(", due in %v", d.Delay)
	}
	return ", due at " + d.At.Format(time.RFC3339)
}

// Parts are the parts that all messages of a command share; only the bodies differ.
type Parts struct {
	Subject             string
	Headers, Properties map[string]string
	Session             string
	Due                 Due
}

// NewMessage returns a message with a body.
func (p *Parts) NewMessage(body []byte) *triggers.Message {
	m := &triggers.Message{Subject: p.Subject, Attributes: p.Headers, OrderingKey: p.Session, Body: body, ID: p.Properties[triggers.MessageID]}
	if session, given := p.Properties[triggers.SessionID]; given {
		m.OrderingKey = session
	}
	properties := p.Properties
	if !p.Due.IsNow() {
		if properties = maps.Clone(properties); properties == nil {
			properties = make(map[string]string, 1)
		}
		properties[triggers.ScheduledAt] = p.Due.From(time.Now()).Format(time.RFC3339Nano)
	}
	if len(properties) > 0 {
		m.Origin = triggers.Known(properties)
	}
	return m
}
