package deadletters

import "github.com/drover-run/drover/triggers/servicebus/namespace"

// Config identifies the dead letters of a queue, or of subscriptions.
type Config struct {
	Access        *namespace.Access
	Queue         string
	Topic         string
	Subscriptions []string
	// Sessions is set if the messages are in sessions: the service shows a message only to the
	// receiver that has locked its session.
	Sessions bool
	// Shared allows replays to a topic with other subscriptions, which also get every message.
	Shared bool
}
