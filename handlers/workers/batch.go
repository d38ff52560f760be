package workers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/handlers/workers/suspects"
	"github.com/drover-run/drover/handlers/workers/worker"
	"github.com/drover-run/drover/triggers"
)

// TakesBatches reports whether the function's workers call it with batches, and thus whether it is
// called by HandleBatch only.
func (h *Handler) TakesBatches() bool { return h.pool.cfg.Functions[h.index].Batch > 0 }

// HandleBatch implements handlers.Batched. A batch with a message that killed its worker, or may have,
// is divided until that message is alone. Such a message is recorded as for Handle.
func (h *Handler) HandleBatch(ctx context.Context, messages []*triggers.Message) (result handlers.BatchResult, err error) {
	if own := h.quarantineHandler(); own != nil {
		return own.HandleBatch(ctx, messages)
	}
	origins := h.originsOf(messages)
	if size := protocol.BatchSize(messages, origins); size > h.pool.cfg.MaxFrame {
		err = fmt.Errorf("%w: the frame of %d messages has %d bytes, and %d is the most", triggers.ErrTooLarge, len(messages), size, h.pool.cfg.MaxFrame)
		if len(messages) == 1 {
			err = handlers.Reject(err)
		}
		return result, err
	}
	try := func(w *worker.Worker) ([]byte, error) {
		c := worker.NewAwaitedCall(ctx, h.index, messages[0])
		c.Batch, c.Origins, c.BatchResult = messages, origins, &result
		return h.submitCall(w, c)
	}
	if m := messages[0]; len(messages) == 1 {
		_, err = h.tryMessage(ctx, m, try)
	} else {
		err = h.trySeveral(ctx, messages, try)
	}
	return result, err
}

// originsOf returns the source's own fields of messages, if the function gets them.
func (h *Handler) originsOf(messages []*triggers.Message) [][]byte {
	if !h.origin {
		return nil
	}
	out := make([][]byte, len(messages))
	for i, m := range messages {
		out[i] = h.originOf(m)
	}
	return out
}

// trySeveral tries a batch of several messages. Its error applies to the whole batch.
func (h *Handler) trySeveral(ctx context.Context, messages []*triggers.Message, try func(*worker.Worker) ([]byte, error)) error {
	registry, keys, suspected := h.pool.suspects, make([]suspects.Message, len(messages)), false
	for i, m := range messages {
		keys[i] = h.suspectKey(m)
		record := registry.RecordOf(keys[i])
		if record.Killer {
			return fmt.Errorf("a message of the batch kills its worker: %w", handlers.ErrRunAgain)
		}
		suspected = suspected || record.RunsAlone()
	}
	if suspected {
		return registry.RunTogether(ctx, keys, try)
	}
	for {
		w, err := h.pool.roster.pickWorker(ctx)
		if err != nil {
			return err
		}
		_, err = try(w)
		var lost *worker.Loss
		switch {
		case !errors.As(err, &lost):
			return err
		case lost.Again: // no call caused it
			if h.quarantineHandler() != nil {
				return fmt.Errorf("its function was moved to other workers: %w", handlers.ErrRunAgain)
			}
		default:
			if h.pool.cfg.Died != nil {
				h.pool.cfg.Died(ctx, lost.Err)
			}
			registry.MarkSuspect(keys...)
			if lost.Alone && !lost.Outside {
				return lost.Err
			}
			return registry.RunTogether(ctx, keys, try) // others may have caused it
		}
	}
}

// judgeLostBatch returns the error of a batch whose worker was lost. Which of its messages is at
// fault is unknown, if one is.
func (h *Handler) judgeLostBatch(w *worker.Worker, c *worker.Call, cancelled error, lost *worker.Loss) error {
	if lost.Culprit || lost.Suspect || c.IgnoredCancel(w) {
		for m := range slices.Values(c.Batch) {
			h.pool.suspects.MarkSuspect(h.suspectKey(m))
		}
		return fmt.Errorf("a message of the batch blocked its worker, or may have: %w: %w", lost.Err, handlers.ErrRunAgain)
	}
	if cancelled != nil {
		return fmt.Errorf("%w: %w", cancelled, handlers.ErrRunAgain)
	}
	return lost
}
