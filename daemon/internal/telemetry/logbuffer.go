package telemetry

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// KeptLines and keptBytes bound the lines that a LogBuffer keeps of each function.
	KeptLines = 200
	keptBytes = 64 << 10
	// maxText bounds a text of a line, in bytes. The end of a longer one is kept: it has the
	// last frames of a traceback.
	maxText = 8 << 10
	// MaxSubscribers is how many may subscribe to a LogBuffer at once.
	MaxSubscribers = 16
	// subscriberBuffer is how many lines a subscriber can be behind before it misses some.
	subscriberBuffer = 256
)

// LogLine is a line of the log that is about a function.
type LogLine struct {
	Time     time.Time      `json:"time"`
	Level    slog.Level     `json:"level" desc:"DEBUG, INFO, WARN or ERROR"`
	Text     string         `json:"text"`
	Instance int            `json:"instance,omitempty" desc:"the instance, if there are several"`
	Dropped  int            `json:"dropped,omitempty" desc:"lines dropped before this one, because the reader is too slow"`
	Attrs    map[string]any `json:"attrs,omitempty" desc:"the other attributes, such as message, worker and attempt"`
}

func (l *LogLine) memorySize() int {
	n := 64 + len(l.Text)
	for key, value := range l.Attrs {
		n += 32 + len(key)
		if text, ok := value.(string); ok {
			n += len(text)
		}
	}
	return n
}

// LogBuffer keeps the latest log lines of each function and delivers new ones to subscribers.
// All methods may be called from many goroutines.
type LogBuffer struct {
	// minLevel is the lowest level that a subscriber has requested.
	minLevel atomic.Int64
	// functionsOf has the names of the functions of each app. Reading it takes no lock, since
	// callers of the logger may hold any.
	functionsOf atomic.Pointer[map[string][]string]
	// levels are the levels of functions; nil if no function has its own.
	levels atomic.Pointer[functionLevels]

	mu          sync.Mutex
	logs        map[string]*functionLog
	subscribers map[*Subscription]struct{}
	closed      chan struct{}
}

type functionLog struct {
	lines []LogLine
	bytes int
}

// keepLine adds a line, and drops the oldest ones that exceed the bounds.
func (l *functionLog) keepLine(line LogLine) {
	l.lines = append(l.lines, line)
	l.bytes += line.memorySize()
	drop := 0
	for ; len(l.lines)-drop > KeptLines || l.bytes > keptBytes && len(l.lines)-drop > 1; drop++ {
		l.bytes -= l.lines[drop].memorySize()
	}
	l.lines = slices.Delete(l.lines, 0, drop)
}

// functionLevels are the lowest levels of lines that are passed on.
type functionLevels struct {
	all slog.Level
	of  map[string]slog.Level
}

// belowLevel reports whether a line of a function, or of none, is not passed on.
func (l *functionLevels) belowLevel(function string, level slog.Level) bool {
	if l == nil {
		return false
	}
	if own, found := l.of[function]; found {
		return level < own
	}
	return level < l.all
}

// NewLogBuffer returns an empty buffer.
func NewLogBuffer() *LogBuffer {
	b := &LogBuffer{logs: make(map[string]*functionLog), subscribers: make(map[*Subscription]struct{}), closed: make(chan struct{})}
	b.minLevel.Store(math.MaxInt64)
	return b
}

// Subscription delivers the lines of one function.
type Subscription struct {
	buffer   *LogBuffer
	function string
	level    slog.Level
	lines    chan LogLine
	dropped  int // since the last line that was delivered; guarded by buffer.mu
}

// Lines delivers the lines. It is never closed.
func (s *Subscription) Lines() <-chan LogLine { return s.lines }

// SetApps sets the functions of each app: a line with the attribute app and no function belongs to
// them. The map is from the value of app to their names.
func (b *LogBuffer) SetApps(functions map[string][]string) { b.functionsOf.Store(&functions) }

// SetLevels sets the lowest level of lines that are passed on: all, and those of functions by their
// names. The next handler's own level must be the lowest of them.
func (b *LogBuffer) SetLevels(all slog.Level, of map[string]slog.Level) {
	if len(of) == 0 {
		b.levels.Store(nil)
		return
	}
	b.levels.Store(&functionLevels{all, of})
}

// addLine delivers a line of a function to the function's subscribers, and keeps it if keep is set.
func (b *LogBuffer) addLine(function string, line LogLine, keep bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if keep {
		if b.logs[function] == nil {
			b.logs[function] = new(functionLog)
		}
		b.logs[function].keepLine(line)
	}
	for s := range b.subscribers {
		if s.function == function {
			s.deliverLocked(line)
		}
	}
}

// DeliverLine delivers a line that comes from elsewhere, such as another instance. If the subscriber
// is too slow, the line is dropped and counted.
func (s *Subscription) DeliverLine(line LogLine) {
	s.buffer.mu.Lock()
	defer s.buffer.mu.Unlock()
	s.deliverLocked(line)
}

// deliverLocked is DeliverLine; the buffer's mu is held.
func (s *Subscription) deliverLocked(line LogLine) {
	if line.Level < s.level {
		return
	}
	line.Dropped += s.dropped
	select {
	case s.lines <- line:
		s.dropped = 0
	default:
		s.dropped = line.Dropped + 1
	}
}

// Subscribe subscribes to the lines of a function at a level or above. It also returns at most
// last of the earlier lines. The subscription is nil if there are MaxSubscribers.
func (b *LogBuffer) Subscribe(function string, level slog.Level, last int) (*Subscription, []LogLine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.subscribers) >= MaxSubscribers {
		return nil, nil
	}
	s := &Subscription{buffer: b, function: function, level: level, lines: make(chan LogLine, subscriberBuffer)}
	b.subscribers[s] = struct{}{}
	b.updateMinLevel()
	var before []LogLine
	if log := b.logs[function]; log != nil {
		for _, line := range log.lines {
			if line.Level >= level {
				before = append(before, line)
			}
		}
	}
	return s, before[max(len(before)-last, 0):]
}

// Unsubscribe ends a subscription.
func (b *LogBuffer) Unsubscribe(s *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subscribers, s)
	b.updateMinLevel()
}

// SubscriberCount returns how many subscribers there are.
func (b *LogBuffer) SubscriberCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subscribers)
}

// updateMinLevel sets the lowest level that a subscriber has requested; mu is held.
func (b *LogBuffer) updateMinLevel() {
	lowest := int64(math.MaxInt64)
	for s := range b.subscribers {
		lowest = min(lowest, int64(s.level))
	}
	b.minLevel.Store(lowest)
}

// CloseSubscribers closes SubscribersClosed: each subscriber is expected to unsubscribe.
func (b *LogBuffer) CloseSubscribers() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
	default:
		close(b.closed)
	}
}

// SubscribersClosed is closed by CloseSubscribers.
func (b *LogBuffer) SubscribersClosed() <-chan struct{} { return b.closed }

// NewHandler returns a log handler that adds the lines of functions to the buffer and passes all
// lines on to next. Lines below next's level are delivered while a subscriber requests that level,
// and not kept: they must not displace the others.
func (b *LogBuffer) NewHandler(next slog.Handler) slog.Handler {
	return &logHandler{next: next, buffer: b}
}

type logHandler struct {
	next   slog.Handler
	buffer *LogBuffer

	attrs  []slog.Attr // of the logger
	prefix string      // of attributes in a group
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return int64(level) >= h.buffer.minLevel.Load() || h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	line := LogLine{Time: r.Time, Level: r.Level, Text: CutText(r.Message)}
	function, app := "", ""
	add := func(prefix string, a slog.Attr) {
		value := a.Value.Resolve()
		switch prefix + a.Key {
		case "function":
			function = value.String()
			return
		case "app":
			app = value.String()
		}
		if line.Attrs == nil {
			line.Attrs = make(map[string]any)
		}
		line.Attrs[prefix+a.Key] = jsonValue(value)
	}
	for _, a := range h.attrs {
		add("", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		add(h.prefix, a)
		return true
	})
	logged := h.next.Enabled(ctx, r.Level) && !h.buffer.levels.Load().belowLevel(function, r.Level)
	switch {
	case function != "":
		h.buffer.addLine(function, line, logged)
	case app != "":
		if functions := h.buffer.functionsOf.Load(); functions != nil {
			for _, function := range (*functions)[app] {
				h.buffer.addLine(function, line, logged)
			}
		}
	}
	if logged {
		return h.next.Handle(ctx, r)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	own := *h
	own.next = h.next.WithAttrs(attrs)
	own.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		own.attrs = append(own.attrs, slog.Attr{Key: h.prefix + a.Key, Value: a.Value})
	}
	return &own
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	own := *h
	own.next = h.next.WithGroup(name)
	own.prefix += name + "."
	return &own
}

// jsonValue returns a value that JSON can encode and that shares nothing with the record.
func jsonValue(v slog.Value) any {
	switch v.Kind() {
	case slog.KindBool, slog.KindInt64, slog.KindUint64, slog.KindFloat64, slog.KindTime:
		return v.Any()
	}
	return CutText(v.String())
}

// CutText returns a text, or its end if it is too long for a log line.
func CutText(text string) string {
	if len(text) > maxText {
		return "..." + strings.ToValidUTF8(text[len(text)-maxText+3:], "")
	}
	return text
}
