package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/drover-run/drover/triggers"
)

// This file reports the rights that an account lacks. A server does not answer a denied
// request. It reports the error on the connection, and the request times out.

// AttemptsBucket is the key-value bucket in which package ledger counts failures.
const AttemptsBucket = "drover-attempts"

// Denied is a right that the account of a connection lacks.
type Denied struct {
	Right   string // publish or subscribe
	Subject string
}

func (d *Denied) Error() string {
	return fmt.Sprintf("the account may not %s to %s, which is needed to %s; grant that, as docs/nats.md lists", d.Right, d.Subject, d.purpose())
}

// purposes describe why drover needs a subject, by the subject's prefix.
var purposes = []struct{ prefix, purpose string }{
	{"$JS.API.STREAM.INFO.KV_" + AttemptsBucket, "count failures"},
	{"$JS.API.STREAM.CREATE.KV_" + AttemptsBucket, "make the bucket in which failures are counted"},
	{"$JS.API.INFO", "make the bucket in which failures are counted"},
	{"$JS.API.STREAM.UPDATE.", "raise the replicas of a stream that drover made"},
	{"$JS.API.STREAM.PURGE.KV_" + AttemptsBucket, "remove the counts of messages that are done"},
	{"$JS.API.STREAM.MSG.GET.KV_" + AttemptsBucket, "count failures"},
	{"$JS.API.DIRECT.GET.KV_" + AttemptsBucket, "count failures"},
	{"$KV." + AttemptsBucket, "count failures"},
	{"$JS.API.STREAM.INFO.", "look a stream up"},
	{"$JS.API.STREAM.CREATE.", "make a stream"},
	{"$JS.API.STREAM.NAMES", "look a stream up"},
	{"$JS.API.STREAM.MSG.GET.", "see how old the oldest message is, and look at messages"},
	{"$JS.API.DIRECT.GET.", "see how old the oldest message is, and look at messages"},
	{"$JS.API.CONSUMER.INFO.", "look the consumer up, and read its backlog"},
	{"$JS.API.CONSUMER.CREATE.", "make the consumer"},
	{"$JS.API.CONSUMER.DURABLE.CREATE.", "make the consumer"},
	{"$JS.API.CONSUMER.MSG.NEXT.", "receive messages"},
	{"$JS.ACK.", "settle messages"},
	{"$JS.EVENT.ADVISORY.", "find messages that the server has given up, since max_deliver is used up"},
	{"_INBOX.", "receive messages, and the server's answers"},
}

func (d *Denied) purpose() string {
	for _, p := range purposes {
		if strings.HasPrefix(d.Subject, p.prefix) {
			return p.purpose
		}
	}
	return "send dead letters and results"
}

var violation = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]+)"`)

// deniedIn returns the missing right that an error of the connection reports; nil for other
// errors.
func deniedIn(err error) *Denied {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return nil
	}
	found := violation.FindStringSubmatch(err.Error())
	if found == nil {
		return nil
	}
	right := "publish"
	if strings.EqualFold(found[1], "subscription") {
		right = "subscribe"
	}
	return &Denied{right, found[2]}
}

// denial has the first and the last time at which a right was missing.
type denial struct{ since, last time.Time }

// deniedFor is how long a missing right is reported after its last use. It may have been granted
// since; the server does not report that.
const deniedFor = 10 * time.Minute

// rights are the account's missing rights, as far as a connection has found them. c.mu guards them.
type rights struct {
	missing map[Denied]denial
	waiting map[*context.CancelCauseFunc]struct{} // to be cancelled
}

// deny records a missing right, and cancels the requests that wait for a response.
func (c *Connection) deny(d *Denied) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rights.missing == nil {
		c.rights.missing = make(map[Denied]denial)
	}
	key := *d
	if d.Right == "subscribe" && strings.HasPrefix(d.Subject, "_INBOX.") {
		key.Subject = "_INBOX.>" // each inbox has another name
	}
	before, known := c.rights.missing[key]
	if !known {
		before.since = now
		c.log.Error("the account lacks a right", "right", key.Right, "subject", key.Subject, "needed_to", key.purpose())
	}
	before.last = now
	c.rights.missing[key] = before
	for cancel := range c.rights.waiting {
		(*cancel)(&key)
	}
}

// UntilDenied returns a context that is cancelled, with a *Denied as its cause, when the server
// reports a missing right. The caller calls the returned function when the request is done.
func (c *Connection) UntilDenied(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rights.waiting == nil {
		c.rights.waiting = make(map[*context.CancelCauseFunc]struct{})
	}
	c.rights.waiting[&cancel] = struct{}{}
	return ctx, func() {
		c.mu.Lock()
		delete(c.rights.waiting, &cancel)
		c.mu.Unlock()
		cancel(nil)
	}
}

// WhyDenied returns the missing right that cancelled ctx, or else err.
func WhyDenied(ctx context.Context, err error) error {
	var denied *Denied
	if errors.As(context.Cause(ctx), &denied) {
		return denied
	}
	return err
}

// Denials returns the missing rights as trouble.
func (c *Connection) Denials() (out []triggers.Trouble) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.rights.missing, func(_ Denied, d denial) bool { return time.Since(d.last) > deniedFor })
	for missing, d := range c.rights.missing {
		out = append(out, triggers.Trouble{Kind: triggers.TroubleRights, Text: missing.Error(), Since: d.since})
	}
	slices.SortFunc(out, func(a, b triggers.Trouble) int { return strings.Compare(a.Text, b.Text) })
	return out
}
