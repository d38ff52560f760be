package daemon

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-run/drover/configs"
)

// This file keeps the latest log lines of each function, and hands them to those who
// follow them. It is a slog.Handler beside the log's own.

const (
	// keptLines and keptBytes bound what is kept of a function.
	keptLines = 200
	keptBytes = 64 << 10
	// longestText bounds a text in a line, in bytes: a traceback's end is kept.
	longestText = 8 << 10
	// maxFollowers is how many may follow at once, and behind how many lines one may
	// be before it misses some.
	maxFollowers = 16
	followerRoom = 256
)

// LogLine is a line of the log that is about a function.
type LogLine struct {
	Time     time.Time      `json:"time"`
	Level    slog.Level     `json:"level" desc:"DEBUG, INFO, WARN or ERROR"`
	Text     string         `json:"text"`
	Instance int            `json:"instance,omitempty" desc:"which of several instances"`
	Dropped  int            `json:"dropped,omitempty" desc:"how many lines were left out before this one, since who reads is too slow"`
	Attrs    map[string]any `json:"attrs,omitempty" desc:"what else it says, such as message, worker and attempt"`
}

func (l *LogLine) size() int {
	n := 64 + len(l.Text)
	for key, value := range l.Attrs {
		n += 32 + len(key)
		if text, ok := value.(string); ok {
			n += len(text)
		}
	}
	return n
}

// lines are those of a daemon's functions.
type lines struct {
	// wanted is the least level that somebody follows.
	wanted atomic.Int64
	// ofApp are the functions of each app, by its name and by its directory. No lock:
	// those who log may hold any.
	ofApp atomic.Pointer[map[string][]string]

	mu        sync.Mutex
	kept      map[string]*keptLog // by function
	followers map[*follower]struct{}
	over      chan struct{} // closed when nobody may follow any more
}

type keptLog struct {
	lines []LogLine
	bytes int
}

func newLines() *lines {
	l := &lines{kept: make(map[string]*keptLog), followers: make(map[*follower]struct{}), over: make(chan struct{})}
	l.wanted.Store(math.MaxInt64)
	return l
}

// follower is one who reads a function's lines.
type follower struct {
	function string
	level    slog.Level
	lines    chan LogLine
	dropped  int // since the last that was handed over; guarded by the mu of lines
}

// use takes the apps of a configuration.
func (l *lines) use(cfg *configs.Config) {
	ofApp := make(map[string][]string)
	for name, f := range cfg.Functions {
		if c, found := f.Handler.Code(); found {
			ofApp[c.App] = append(ofApp[c.App], name)
			ofApp[cfg.Apps[c.App].Dir] = append(ofApp[cfg.Apps[c.App].Dir], name)
		}
	}
	l.ofApp.Store(&ofApp)
}

func (l *lines) functionsOf(app string) []string {
	if ofApp := l.ofApp.Load(); ofApp != nil {
		return (*ofApp)[app]
	}
	return nil
}

// note keeps a line of a function, and hands it to those who follow.
func (l *lines) note(function string, line LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kept[function]
	if k == nil {
		k = new(keptLog)
		l.kept[function] = k
	}
	k.lines = append(k.lines, line)
	k.bytes += line.size()
	drop := 0
	for ; len(k.lines)-drop > keptLines || k.bytes > keptBytes && len(k.lines)-drop > 1; drop++ {
		k.bytes -= k.lines[drop].size()
	}
	k.lines = slices.Delete(k.lines, 0, drop)
	for f := range l.followers {
		if f.function == function {
			f.give(line)
		}
	}
}

// give hands a line over, or counts it; the mu of lines is held.
func (f *follower) give(line LogLine) {
	if line.Level < f.level {
		return
	}
	line.Dropped += f.dropped
	select {
	case f.lines <- line:
		f.dropped = 0
	default:
		f.dropped = line.Dropped + 1
	}
}

// follow begins to follow a function from its last lines on; nil where too many do.
func (l *lines) follow(function string, level slog.Level, last int) (*follower, []LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.followers) >= maxFollowers {
		return nil, nil
	}
	f := &follower{function: function, level: level, lines: make(chan LogLine, followerRoom)}
	l.followers[f] = struct{}{}
	l.want()
	var before []LogLine
	if k := l.kept[function]; k != nil {
		for _, line := range k.lines {
			if line.Level >= level {
				before = append(before, line)
			}
		}
	}
	return f, before[max(len(before)-last, 0):]
}

func (l *lines) leave(f *follower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.followers, f)
	l.want()
}

// want sets the least level that somebody follows; mu is held.
func (l *lines) want() {
	least := int64(math.MaxInt64)
	for f := range l.followers {
		least = min(least, int64(f.level))
	}
	l.wanted.Store(least)
}

// end lets those go who follow.
func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.over:
	default:
		close(l.over)
	}
}

// tee is the log's handler, and keeps what is about a function. What is below the
// log's level is kept, too, while somebody follows at that level.
type tee struct {
	next  slog.Handler
	lines *lines

	attrs  []slog.Attr // of the logger
	prefix string      // of what is in a group
}

// Enabled implements slog.Handler.
func (h *tee) Enabled(ctx context.Context, level slog.Level) bool {
	return int64(level) >= h.lines.wanted.Load() || h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *tee) Handle(ctx context.Context, r slog.Record) error {
	line := LogLine{Time: r.Time, Level: r.Level, Text: cutText(r.Message)}
	function, app := "", ""
	take := func(prefix string, a slog.Attr) {
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
		line.Attrs[prefix+a.Key] = plain(value)
	}
	for _, a := range h.attrs {
		take("", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		take(h.prefix, a)
		return true
	})
	switch {
	case function != "":
		h.lines.note(function, line)
	case app != "":
		for _, function := range h.lines.functionsOf(app) {
			h.lines.note(function, line)
		}
	}
	if h.next.Enabled(ctx, r.Level) {
		return h.next.Handle(ctx, r)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h *tee) WithAttrs(attrs []slog.Attr) slog.Handler {
	own := *h
	own.next = h.next.WithAttrs(attrs)
	own.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		own.attrs = append(own.attrs, slog.Attr{Key: h.prefix + a.Key, Value: a.Value})
	}
	return &own
}

// WithGroup implements slog.Handler.
func (h *tee) WithGroup(name string) slog.Handler {
	own := *h
	own.next = h.next.WithGroup(name)
	own.prefix += name + "."
	return &own
}

// plain is a value as JSON has it, and no part of anything that may change.
func plain(v slog.Value) any {
	switch v.Kind() {
	case slog.KindBool, slog.KindInt64, slog.KindUint64, slog.KindFloat64, slog.KindTime:
		return v.Any()
	}
	return cutText(v.String())
}

func cutText(text string) string {
	if len(text) > longestText {
		return "..." + strings.ToValidUTF8(text[len(text)-longestText+3:], "")
	}
	return text
}
