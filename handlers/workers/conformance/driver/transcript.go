package driver

import (
	"slices"
	"sync"
)

// calls has the IDs of the calls in flight.
type calls struct {
	mu   sync.Mutex
	open map[uint32]bool
}

func (c *calls) begin(ids []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = make(map[uint32]bool)
	}
	for _, id := range ids {
		c.open[id] = true
	}
}

// finish removes a call, and reports whether it was in flight.
func (c *calls) finish(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.open[id]
	delete(c.open, id)
	return was
}

func (c *calls) has(id int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return id >= 0 && id <= 0xFFFFFFFF && c.open[uint32(id)]
}

func (c *calls) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// transcript has the latest frames in each direction, as text.
type transcript struct {
	mu         sync.Mutex
	sent, came []string
}

const maxTranscript = 12 // lines of each direction

func (t *transcript) addSent(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = addLine(t.sent, line)
}

func (t *transcript) addCame(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.came = addLine(t.came, line)
}

// addLine appends a line unless it repeats the last one. It drops the oldest line if there are too many.
func addLine(lines []string, line string) []string {
	if n := len(lines); n > 0 && lines[n-1] == line {
		return lines
	}
	if lines = append(lines, line); len(lines) > maxTranscript {
		lines = append([]string{"…"}, lines[2:]...)
	}
	return lines
}

func (t *transcript) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent, t.came = nil, nil
}

func (t *transcript) lines() (sent, came []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.sent), slices.Clone(t.came)
}
