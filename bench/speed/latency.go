package speed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/drover-run/drover/bench/rig"
)

type LatencyCommand struct {
	Messages int `default:"2000" help:"Messages for each setup, one at a time."`
}

// Run publishes one message, waits for its acknowledgement, and so on. The
// acknowledgement is seen where the server sees it: on its subject.
func (c *LatencyCommand) Run(ctx context.Context) (err error) {
	if c.Messages < 1 {
		return errors.New("--messages must be at least 1")
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "publish to ack\tp50\tp99\t")
	for _, s := range []rig.Setup{setups[0], setups[1], setups[3], setups[5]} {
		took, err := c.measure(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		slices.Sort(took)
		fmt.Fprintf(w, "%s\t%v\t%v\t\n", s.Name, took[len(took)/2], took[len(took)*99/100])
	}
	return w.Flush()
}

func (c *LatencyCommand) measure(ctx context.Context, s rig.Setup) (took []time.Duration, err error) {
	r, err := rig.New(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	consumer, err := r.Consumer(ctx)
	if err != nil {
		return nil, err
	}
	name := consumer.CachedInfo().Name
	acks := make(chan *nats.Msg, 16)
	sub, err := r.Conn.Conn().ChanSubscribe("$JS.ACK."+rig.Stream+"."+name+".>", acks)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sub.Unsubscribe()) }()
	_, stop, err := r.Daemon(ctx, name, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	body := make([]byte, 128)
	const warmUp = 100
	for i := range c.Messages + warmUp {
		start := time.Now()
		if err := r.Conn.Conn().Publish(rig.Subject, body); err != nil {
			return nil, err
		}
		select {
		case <-acks:
		case <-time.After(10 * time.Second):
			return nil, errors.New("no acknowledgement within 10 s")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if i >= warmUp {
			took = append(took, time.Since(start))
		}
	}
	return took, nil
}
