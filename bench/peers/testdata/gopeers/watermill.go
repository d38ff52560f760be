package main

import (
	"context"
	"os"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	wmjetstream "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/jetstream"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/bench/work"
)

// runWatermill handles messages by subscribers of one durable consumer, each of which handles one
// message at a time, and acknowledges without a reply.
func runWatermill(ctx context.Context) error {
	job, err := work.FromEnv()
	if err != nil {
		return err
	}
	subscribers, err := number("PEER_WORKERS")
	if err != nil {
		return err
	}
	batch, err := number("PEER_BATCH")
	if err != nil {
		return err
	}
	subscriber, err := wmjetstream.NewSubscriber(wmjetstream.SubscriberConfig{
		URL: os.Getenv("NATS_URL"), Logger: watermill.NopLogger{}, AckAsync: true,
		ConsumeOptions: []jetstream.PullConsumeOpt{jetstream.PullMaxMessages(batch)},
		ResourceInitializer: func(ctx context.Context, js jetstream.JetStream, _ string) (jetstream.Consumer, func(context.Context, watermill.LoggerAdapter), error) {
			consumer, err := js.CreateOrUpdateConsumer(ctx, "JOB", jetstream.ConsumerConfig{Durable: "job", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 20_000})
			return consumer, nil, err
		},
	})
	if err != nil {
		return err
	}
	var handling sync.WaitGroup
	for range subscribers {
		messages, err := subscriber.Subscribe(ctx, "job")
		if err != nil {
			return err
		}
		handling.Go(func() {
			for m := range messages {
				if err := job.Do(ctx, m.Payload); err != nil {
					m.Nack()
				} else {
					m.Ack()
				}
			}
		})
	}
	handling.Wait()
	return nil
}
