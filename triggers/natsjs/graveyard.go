package natsjs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
)

// This file checks for the dead-letter stream, creates it, and cuts dead letters that are too
// large for it. message.go writes the dead letters.

const (
	// checkLimit bounds each request of a check. A check ignores a missing response.
	checkLimit = 2 * time.Second
	// checkAgain is the time between two checks while rejected messages cannot be moved.
	checkAgain = 15 * time.Second
	// errWrongStream is the server's code for a message whose header expects another stream.
	errWrongStream jetstream.ErrorCode = 10060
	// errTooLarge is its code for a message above the stream's max_msg_size.
	errTooLarge jetstream.ErrorCode = 10054
)

func hasCode(err error, code jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == code
}

func nobodyTakes(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders)
}

// probe reports whether a stream takes a subject, without storing a message: the message
// expects another stream in its header, so the stream refuses it. Otherwise probe returns the
// error of the publish; nobodyTakes recognizes a subject that no stream has.
func (c *Connection) probe(ctx context.Context, subject string) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	m := nats.NewMsg(subject)
	m.Header.Set(jetstream.ExpectedStreamHeader, "drover-check")
	asking, done := c.untilDenied(ctx)
	defer done()
	_, err := c.js.PublishMsg(asking, m, jetstream.WithRetryAttempts(0))
	if hasCode(err, errWrongStream) {
		return nil
	}
	return whyDenied(asking, err)
}

// GraveyardCommand returns the shell command that creates a dead-letter stream.
func GraveyardCommand(deadLetters string, replicas int) string {
	command := fmt.Sprintf("nats stream add %s --subjects '%s.>' --storage file", deadLetters, deadLetters)
	if replicas > 1 {
		command += " --replicas " + strconv.Itoa(replicas)
	}
	return command + " --defaults"
}

// checkGraveyard checks whether rejected messages can be moved, if drover does not create the
// stream for them, and records the result as trouble. If the account's rights or the server
// prevent the check, a problem shows only at the first rejection.
func (t *trigger) checkGraveyard(ctx context.Context) {
	err := t.conn.probe(ctx, t.cfg.DeadLetters+"."+t.exampleSubject(ctx))
	switch {
	case err == nil:
		if t.troubles.Clear(triggers.TroubleDeadLetters) {
			t.log.Info("rejected messages can be moved again", "dead_letters", t.cfg.DeadLetters)
		}
	case nobodyTakes(err):
		text := fmt.Sprintf("rejected messages cannot be moved: no stream takes %s.>; make it with %s, or set create: true", t.cfg.DeadLetters, GraveyardCommand(t.cfg.DeadLetters, t.replicas(ctx)))
		if t.troubles.Set(triggers.TroubleDeadLetters, text) {
			t.log.Warn("no stream takes dead letters: rejected messages will wait here until there is one", "dead_letters", t.cfg.DeadLetters,
				"make_it_with", GraveyardCommand(t.cfg.DeadLetters, t.replicas(ctx)))
		}
	default:
		t.log.Debug("whether dead letters can be written is not known", "dead_letters", t.cfg.DeadLetters, "error", err)
	}
}

// watchGraveyard checks again while rejected messages cannot be moved.
func (t *trigger) watchGraveyard(ctx context.Context) {
	again := time.NewTicker(checkAgain)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			if t.troubles.Has(triggers.TroubleDeadLetters) && t.conn.nc.IsConnected() {
				t.checkGraveyard(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

// exampleSubject returns a subject that the consumer's messages may have.
func (t *trigger) exampleSubject(ctx context.Context) string {
	subject := t.cfg.Subject
	if subject == "" {
		ctx, cancel := context.WithTimeout(ctx, checkLimit)
		defer cancel()
		if stream, err := t.conn.js.Stream(ctx, t.cfg.Stream); err == nil && len(stream.CachedInfo().Config.Subjects) > 0 {
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

// replicas returns the number of replicas of the stream; 1 if it cannot be read. The bucket and
// the dead-letter stream get as many.
func (t *trigger) replicas(ctx context.Context) int { return replicasOf(ctx, t.conn.js, t.cfg.Stream) }

func replicasOf(ctx context.Context, js jetstream.JetStream, stream string) int {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 1
	}
	return max(s.CachedInfo().Config.Replicas, 1)
}

// graveyardNote begins the description of dead-letter streams that drover creates.
const graveyardNote = "messages that drover rejected from "

// makeGraveyard creates the dead-letter stream, with as many replicas as the stream has.
func (t *trigger) makeGraveyard(ctx context.Context) error {
	replicas := t.replicas(ctx)
	if !t.cfg.Create {
		return fmt.Errorf("no stream takes %s.>; make it with %s, or set create: true", t.cfg.DeadLetters, GraveyardCommand(t.cfg.DeadLetters, replicas))
	}
	_, err := t.conn.js.CreateStream(ctx, jetstream.StreamConfig{
		Name:        t.cfg.DeadLetters,
		Description: graveyardNote + t.cfg.Stream,
		Subjects:    []string{t.cfg.DeadLetters + ".>"},
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		Duplicates:  max(2*time.Minute, 2*t.cfg.AckWait),
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil
	}
	return err
}

// raiseGraveyard raises the replicas of a dead-letter stream that drover created to those of
// the stream.
func (t *trigger) raiseGraveyard(ctx context.Context) {
	if replicas := t.replicas(ctx); t.cfg.Create && replicas > 1 {
		t.raise(ctx, t.cfg.DeadLetters, graveyardNote, replicas)
	}
}

// raise raises the replicas of a stream that drover created.
func (t *trigger) raise(ctx context.Context, stream, note string, replicas int) {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	s, err := t.conn.js.Stream(ctx, stream)
	if err != nil {
		return // it does not exist yet
	}
	cfg := s.CachedInfo().Config
	if cfg.Replicas >= replicas || !strings.HasPrefix(cfg.Description, note) {
		return
	}
	before := cfg.Replicas
	cfg.Replicas = replicas
	if _, err := t.conn.js.UpdateStream(ctx, cfg); err != nil {
		t.log.Warn("a stream that belongs to this one has fewer replicas: an outage of one server takes it away", "of", stream, "replicas", before, "wanted", replicas, "error", err)
		return
	}
	t.log.Info("a stream that belongs to this one has more replicas now", "of", stream, "from", before, "to", replicas)
}

// cutLetter shortens a dead letter's body so that it fits into limit bytes, and records the
// original length in a header. It returns false if the headers alone are too large.
func cutLetter(dead *nats.Msg, limit int64) bool {
	whole := len(dead.Data)
	dead.Header[bodyLengthHeader] = []string{strconv.Itoa(whole)}
	dead.Header["Drover-Note"] = []string{fmt.Sprintf("the original headers were left out, and the body of %d bytes was cut: they did not fit the server's limit; it cannot be replayed", whole)}
	over := int64(dead.Size()) - limit
	if over > int64(whole) {
		return false
	}
	dead.Data = dead.Data[:int64(whole)-max(over, 0)]
	return true
}

// bodyLengthHeader has the original length of a body that was cut.
const bodyLengthHeader = "Drover-Body-Length"

// letterLimit returns the maximum size of a dead letter, in bytes: the server's limit or the
// stream's, whichever is smaller. The stream's is read only after the stream refused one.
func (t *trigger) letterLimit(ctx context.Context, refused bool) int64 {
	limit := t.conn.nc.MaxPayload()
	if refused {
		if s, err := t.conn.js.Stream(ctx, t.cfg.DeadLetters); err == nil && s.CachedInfo().Config.MaxMsgSize > 0 {
			limit = min(limit, int64(s.CachedInfo().Config.MaxMsgSize))
		}
	}
	return limit
}

// Troubles implements triggers.Troubled.
func (t *trigger) Troubles() []triggers.Trouble { return append(t.troubles.All(), t.conn.denials()...) }
