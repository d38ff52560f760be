package deadletters

import "github.com/drover-run/drover/triggers/servicebus/namespace"

// Config names the dead letters of a queue, or of subscriptions.
type Config struct {
	Access        *namespace.Access
	Queue         string
	Topic         string
	Subscriptions []string
	// Sessions is set if the messages are in sessions: the service shows a message only
	// to the holder of its session.
	Sessions bool
	// Shared allows replays to a topic with other subscriptions, which get every message,
	// too.
	Shared bool
}
