package natsjs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// deadID names a message's dead letter, always the same: a crash between the copy and the end of the
// original brings a second copy, which the server drops by this name. It names the
// life of stream and consumer, since another one has other messages with the same sequence.
func (l *leasedMessage) deadID() string {
	return fmt.Sprintf("drover.%s.%s.%d.%d.%d", l.t.cfg.Stream, l.t.cfg.Consumer, l.Sequence, l.life.stream.UnixNano(), l.life.consumer.UnixNano())
}

// publishOnce publishes a dead letter that has a name. Where the server drops it as a
// duplicate, the first one must be there: it may have been replayed or removed since, while the
// server still remembers its name. Then this one is published under another name.
func (t *trigger) publishOnce(ctx context.Context, dead *nats.Msg) error {
	taken, err := t.conn.js.PublishMsg(ctx, dead)
	if err != nil || !taken.Duplicate {
		return err
	}
	name := dead.Header.Get(jetstream.MsgIDHeader)
	stream, err := t.conn.js.Stream(ctx, taken.Stream)
	if err == nil {
		var first *jetstream.RawStreamMsg
		if first, err = stream.GetMsg(ctx, taken.Sequence); err == nil && first.Header.Get(jetstream.MsgIDHeader) == name {
			return nil
		}
	}
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		t.log.Warn("cannot check for an earlier copy of a dead letter; there may be two", "stream", taken.Stream, "id", name, "error", err)
	}
	dead.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("%s.%d", name, time.Now().UnixNano()))
	_, err = t.conn.js.PublishMsg(ctx, dead)
	return err
}
