package natsjs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// deadID returns the ID of a message's dead letter. It is always the same: after a crash between
// the copy and the settlement, the server drops the second copy by this ID. It includes the
// life of stream and consumer, because a new life reuses sequences.
func (l *leasedMessage) deadID() string {
	return fmt.Sprintf("drover.%s.%s.%d.%d.%d", l.t.cfg.Stream, l.t.cfg.Consumer, l.Sequence, l.life.stream.UnixNano(), l.life.consumer.UnixNano())
}

// publishOnce publishes a dead letter with an ID. If the server drops it as a duplicate,
// publishOnce checks that the first copy still exists. If it was replayed or removed while the
// ID was within the duplicate window, the dead letter is published under another ID.
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
