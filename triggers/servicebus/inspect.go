package servicebus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// inspector queries the admin API for an entity, which requires the right Manage.
type inspector struct {
	address
	client *admin.Client
	done   func() // must be called at the end
}

// properties are the properties of an entity that are checked.
type properties struct {
	sessions, duplicates bool
	maxDeliveries        int
	status               admin.EntityStatus
	lock                 time.Duration
}

// fit compares an entity with the configuration.
func (p *properties) fit(cfg Config, path string) error {
	switch {
	case p.status == admin.EntityStatusDisabled || p.status == admin.EntityStatusReceiveDisabled:
		return fmt.Errorf("receiving from %s is disabled (%s); set its status to Active", path, p.status)
	case p.sessions && !cfg.Sessions:
		return fmt.Errorf("%s requires sessions; set sessions: true", path)
	case !p.sessions && cfg.Sessions:
		return fmt.Errorf("%s has no sessions; remove sessions, or recreate it with sessions", path)
	case cfg.Scheduled && p.duplicates:
		return fmt.Errorf("%s detects duplicates, and would drop the copy of a message for its retry; set retry.mode: hold", path)
	case cfg.MaxAttempts > 0 && p.maxDeliveries <= cfg.MaxAttempts && !cfg.Scheduled:
		return fmt.Errorf("the MaxDeliveryCount of %s is %d: it counts releases and lost locks too, and must be more than max_attempts (%d), or messages are dead letters too early; raise it, or lower max_attempts",
			path, p.maxDeliveries, cfg.MaxAttempts)
	}
	return nil
}

// properties returns the properties of the entity; nil if it does not exist.
func (i *inspector) properties(ctx context.Context) (*properties, error) {
	c := i.client
	if i.queue != "" {
		r, err := c.GetQueue(ctx, i.queue, nil)
		if err != nil || r == nil {
			return nil, err
		}
		return &properties{is(r.RequiresSession), is(r.RequiresDuplicateDetection), number(r.MaxDeliveryCount), status(r.Status), namespace.LockTime(r.LockDuration)}, nil
	}
	r, err := c.GetSubscription(ctx, i.topic, i.subscription, nil)
	if missing(err) || err == nil && r == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &properties{is(r.RequiresSession), false, number(r.MaxDeliveryCount), status(r.Status), namespace.LockTime(r.LockDuration)}, nil
}

func is(b *bool) bool { return b != nil && *b }

func number(n *int32) int {
	if n == nil {
		return 10 // the service's own default
	}
	return int(*n)
}

func status(s *admin.EntityStatus) admin.EntityStatus {
	if s == nil {
		return admin.EntityStatusActive
	}
	return *s
}

func missing(err error) bool { return hasStatus(err, http.StatusNotFound) }

func hasStatus(err error, code int) bool {
	var r *azcore.ResponseError
	return errors.As(err, &r) && r.StatusCode == code
}

// create creates the entity and its topic. Existing ones are not an error.
func (i *inspector) create(ctx context.Context, cfg Config) error {
	c, sessions := i.client, cfg.Sessions
	deliveries := int32(max(10, 2*cfg.MaxAttempts))
	exists := func(err error) error {
		if hasStatus(err, http.StatusConflict) {
			return nil
		}
		return err
	}
	if i.queue != "" {
		_, err := c.CreateQueue(ctx, i.queue, &admin.CreateQueueOptions{Properties: &admin.QueueProperties{RequiresSession: &sessions, MaxDeliveryCount: &deliveries}})
		return exists(err)
	}
	if _, err := c.CreateTopic(ctx, i.topic, nil); exists(err) != nil {
		return err
	}
	_, err := c.CreateSubscription(ctx, i.topic, i.subscription, &admin.CreateSubscriptionOptions{Properties: &admin.SubscriptionProperties{RequiresSession: &sessions, MaxDeliveryCount: &deliveries}})
	return exists(err)
}

// counts counts the messages. The active ones include locked ones.
func (i *inspector) counts(ctx context.Context) (active, dead, scheduled int64, _ error) {
	if i.queue != "" {
		r, err := i.client.GetQueueRuntimeProperties(ctx, i.queue, nil)
		if err != nil || r == nil {
			return 0, 0, 0, fmt.Errorf("counting the messages of %s: %w", i.path(), namespace.OrMissing(err))
		}
		return int64(r.ActiveMessageCount), int64(r.DeadLetterMessageCount), int64(r.ScheduledMessageCount), nil
	}
	r, err := i.client.GetSubscriptionRuntimeProperties(ctx, i.topic, i.subscription, nil)
	if err != nil || r == nil {
		return 0, 0, 0, fmt.Errorf("counting the messages of %s: %w", i.path(), namespace.OrMissing(err))
	}
	return int64(r.ActiveMessageCount), int64(r.DeadLetterMessageCount), 0, nil
}
