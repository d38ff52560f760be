package deadletters

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
)

const (
	// checkAgain is the time between two checks while rejected messages cannot be moved.
	checkAgain = 15 * time.Second
	// errTooLarge is the server's code for a message above the stream's max_msg_size.
	errTooLarge jetstream.ErrorCode = 10054
)

// Graveyard is the dead-letter stream to which the rejected messages of one consumer are copied. Its
// methods may be called from any goroutine. While messages cannot be copied, it reports
// triggers.TroubleDeadLetters in Troubles.
type Graveyard struct {
	Conn        *client.Connection
	Stream      string // the stream of the messages
	Subject     string // the consumer's filter; may be empty
	DeadLetters string // the prefix of the subjects, and the name of the stream if it is created
	// Create creates the dead-letter stream when it is needed.
	Create bool
	// AckWait is the consumer's. A created stream detects duplicates for longer.
	AckWait  time.Duration
	Troubles *triggers.Troubles
	Log      *slog.Logger
}

// CreateCommand returns the shell command that creates a dead-letter stream.
func CreateCommand(deadLetters string, replicas int) string {
	command := fmt.Sprintf("nats stream add %s --subjects '%s.>' --storage file", deadLetters, deadLetters)
	if replicas > 1 {
		command += " --replicas " + strconv.Itoa(replicas)
	}
	return command + " --defaults"
}

// Check checks whether rejected messages can be moved, if drover does not create the
// stream for them, and records the result as trouble. If the account's rights or the server
// prevent the check, a problem shows only at the first rejection.
func (g *Graveyard) Check(ctx context.Context) {
	err := g.Conn.Probe(ctx, g.DeadLetters+"."+g.exampleSubject(ctx))
	switch {
	case err == nil:
		if g.Troubles.Clear(triggers.TroubleDeadLetters) {
			g.Log.Info("rejected messages can be moved again", "dead_letters", g.DeadLetters)
		}
	case client.NobodyTakes(err):
		command := CreateCommand(g.DeadLetters, g.Conn.CountReplicas(ctx, g.Stream))
		text := fmt.Sprintf("rejected messages cannot be moved: no stream takes %s.>; make it with %s, or set create: true", g.DeadLetters, command)
		if g.Troubles.Set(triggers.TroubleDeadLetters, text) {
			g.Log.Warn("no stream takes dead letters: rejected messages will wait here until there is one", "dead_letters", g.DeadLetters, "make_it_with", command)
		}
	default:
		g.Log.Debug("whether dead letters can be written is not known", "dead_letters", g.DeadLetters, "error", err)
	}
}

// Watch checks again while rejected messages cannot be moved, until ctx ends.
func (g *Graveyard) Watch(ctx context.Context) {
	again := time.NewTicker(checkAgain)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			if g.Troubles.Has(triggers.TroubleDeadLetters) && g.Conn.Conn().IsConnected() {
				g.Check(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

// exampleSubject returns a subject that the consumer's messages may have.
func (g *Graveyard) exampleSubject(ctx context.Context) string {
	subject := g.Subject
	if subject == "" {
		ctx, cancel := context.WithTimeout(ctx, client.CheckLimit)
		defer cancel()
		if stream, err := g.Conn.JetStream().Stream(ctx, g.Stream); err == nil && len(stream.CachedInfo().Config.Subjects) > 0 {
			subject = stream.CachedInfo().Config.Subjects[0]
		}
	}
	var out []string
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || token == "*" || token == ">" {
			token = "drover"
		}
		out = append(out, token)
	}
	return strings.Join(out, ".")
}

// streamNote begins the description of dead-letter streams that drover creates.
const streamNote = "messages that drover rejected from "

// RaiseReplicas raises the replicas of a dead-letter stream that drover created to those of
// the stream.
func (g *Graveyard) RaiseReplicas(ctx context.Context) {
	if g.Create {
		g.Conn.RaiseReplicas(ctx, g.Stream, g.DeadLetters, streamNote, g.Log)
	}
}

// createStream creates the dead-letter stream, with as many replicas as the stream has.
func (g *Graveyard) createStream(ctx context.Context) error {
	replicas := g.Conn.CountReplicas(ctx, g.Stream)
	if !g.Create {
		return fmt.Errorf("no stream takes %s.>; make it with %s, or set create: true", g.DeadLetters, CreateCommand(g.DeadLetters, replicas))
	}
	_, err := g.Conn.JetStream().CreateStream(ctx, jetstream.StreamConfig{
		Name:        g.DeadLetters,
		Description: streamNote + g.Stream,
		Subjects:    []string{g.DeadLetters + ".>"},
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		Duplicates:  max(2*time.Minute, 2*g.AckWait),
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil
	}
	return err
}

// Bury copies a rejected message to the dead-letter stream, and creates the stream if it is missing.
// A copy that exceeds the server's limits loses its detail first, then the original headers, then
// the end of its body. Bury may be called again for the same message.
func (g *Graveyard) Bury(ctx context.Context, r Rejected) error {
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
	defer cancel()
	limit := g.letterLimit(ctx, false)
	for _, form := range []struct {
		detail, headers, cut bool
	}{{true, true, false}, {false, true, false}, {false, false, false}, {false, false, true}} {
		dead := newLetter(r, g.Stream, g.DeadLetters, form.detail, form.headers)
		if int64(dead.Size()) > limit && (!form.cut || !cutLetter(dead, limit)) {
			continue
		}
		err := g.publish(ctx, dead)
		if client.NobodyTakes(err) {
			if err = g.createStream(ctx); err == nil {
				err = g.publish(ctx, dead)
			}
		}
		if client.HasCode(err, errTooLarge) && !form.cut {
			limit = g.letterLimit(ctx, true)
			continue
		}
		if err != nil {
			return fmt.Errorf("copying it to the dead-letter stream %s: %w", g.DeadLetters, err)
		}
		if form.cut {
			g.Log.Error("the body of a dead letter was cut: it was too large for the server", "message", r.Message.ID, "bytes", len(r.Message.Body), "kept", len(dead.Data), "limit", limit)
		}
		g.Troubles.Clear(triggers.TroubleDeadLetters)
		return nil
	}
	return fmt.Errorf("a dead letter may have %d bytes, which is too few for its reason; raise max_payload of the server, or max_msg_size of the stream %s", limit, g.DeadLetters)
}

// publish publishes a dead letter with an ID. If the server drops it as a duplicate,
// publish checks that the first copy still exists. If it was replayed or removed while the
// ID was within the duplicate window, the dead letter is published under another ID.
func (g *Graveyard) publish(ctx context.Context, dead *nats.Msg) error {
	taken, err := g.Conn.JetStream().PublishMsg(ctx, dead)
	if err != nil || !taken.Duplicate {
		return err
	}
	name := dead.Header.Get(jetstream.MsgIDHeader)
	stream, err := g.Conn.JetStream().Stream(ctx, taken.Stream)
	if err == nil {
		var first *jetstream.RawStreamMsg
		if first, err = stream.GetMsg(ctx, taken.Sequence); err == nil && first.Header.Get(jetstream.MsgIDHeader) == name {
			return nil
		}
	}
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		g.Log.Warn("cannot check for an earlier copy of a dead letter; there may be two", "stream", taken.Stream, "id", name, "error", err)
	}
	dead.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("%s.%d", name, time.Now().UnixNano()))
	_, err = g.Conn.JetStream().PublishMsg(ctx, dead)
	return err
}

// letterLimit returns the maximum size of a dead letter, in bytes: the server's limit or the
// stream's, whichever is smaller. The stream's is read only after the stream refused one.
func (g *Graveyard) letterLimit(ctx context.Context, refused bool) int64 {
	limit := g.Conn.Conn().MaxPayload()
	if refused {
		if s, err := g.Conn.JetStream().Stream(ctx, g.DeadLetters); err == nil && s.CachedInfo().Config.MaxMsgSize > 0 {
			limit = min(limit, int64(s.CachedInfo().Config.MaxMsgSize))
		}
	}
	return limit
}
