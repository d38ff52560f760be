package batches

import (
	"slices"

	"github.com/drover-run/drover/triggers"
)

// This file keeps the order of messages with the same ordering key. A source that has such an order
// may deliver several messages of a key together, and no more of it until all of these are settled.

// keyState is the state of an ordering key with unsettled messages.
type keyState struct {
	unsettled int
	next      []string // IDs of the messages that are not in a batch yet, in order
	running   bool     // a batch has messages of it
	failed    bool     // one of them failed: those behind it are passed back until all are settled
}

// BeginReceive implements handlers.Collector.
func (h *Handler) BeginReceive(got []*triggers.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range got {
		key := d.Message.OrderingKey
		if key == "" {
			continue
		}
		state := h.keys[key]
		if state == nil {
			state = new(keyState)
			h.keys[key] = state
		}
		state.unsettled++
		state.next = append(state.next, d.Message.ID)
	}
}

// EndMessage implements handlers.Collector.
func (h *Handler) EndMessage(m *triggers.Message) {
	if m.OrderingKey == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	state := h.keys[m.OrderingKey]
	if state == nil {
		return
	}
	if state.unsettled--; state.unsettled <= 0 {
		delete(h.keys, m.OrderingKey)
		return
	}
	if at := slices.Index(state.next, m.ID); at >= 0 { // no batch had it
		state.next = slices.Delete(state.next, at, at+1)
		h.runDue()
	}
}

// isHeldBack reports whether a message must run after one that failed. mu is held.
func (h *Handler) isHeldBack(m *triggers.Message) bool {
	state := h.keys[m.OrderingKey]
	return state != nil && state.failed
}

// isNext reports whether a waiting message may run now: all messages before it in the order of its key
// have run, or run in the same batch. mu is held.
func (h *Handler) isNext(m *triggers.Message) bool {
	state := h.keys[m.OrderingKey]
	return state == nil || !state.running && len(state.next) > 0 && state.next[0] == m.ID
}

// noteTaken records that a batch takes a message; mu is held.
func (h *Handler) noteTaken(m *triggers.Message) {
	if state := h.keys[m.OrderingKey]; state != nil {
		state.next = state.next[1:]
	}
}

// setRunning records that a batch begins or ends to run messages, and which keys failed in it. mu is
// held.
func (h *Handler) setRunning(items []item, running bool, failed map[string]bool) {
	for _, it := range items {
		if state := h.keys[it.message.OrderingKey]; state != nil {
			state.running = running
			state.failed = state.failed || failed[it.message.OrderingKey]
		}
	}
}

// takeHeldBack removes the waiting messages that must run after one that failed. mu is held.
func (h *Handler) takeHeldBack() (out []item) {
	rest, due := h.waiting[:0], 0
	for i, it := range h.waiting {
		if h.isHeldBack(it.message) {
			out = append(out, it)
			continue
		}
		if i < h.due {
			due++
		}
		rest = append(rest, it)
	}
	clear(h.waiting[len(rest):])
	h.waiting, h.due = rest, due
	return out
}
