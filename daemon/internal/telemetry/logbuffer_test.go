package telemetry

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func testLine(n int) LogLine { return LogLine{Level: slog.LevelInfo, Text: fmt.Sprint(n)} }

// The buffer of a function is bounded, in lines and in bytes.
func TestKeptLinesAreBounded(t *testing.T) {
	l := NewLogBuffer()
	for n := range 3 * KeptLines {
		l.addLine("f", testLine(n), true)
	}
	f, before := l.Subscribe("f", slog.LevelInfo, 1000)
	if len(before) != KeptLines || before[0].Text != fmt.Sprint(2*KeptLines) {
		t.Errorf("%d lines, from %s on", len(before), before[0].Text)
	}
	l.Unsubscribe(f)
	large := strings.Repeat("x", maxText)
	for range 100 {
		l.addLine("f", LogLine{Text: large}, true)
	}
	if k := l.logs["f"]; k.bytes > keptBytes || len(k.lines) != keptBytes/maxText-1 {
		t.Errorf("%d bytes in %d lines", k.bytes, len(k.lines))
	}
	if f, before = l.Subscribe("g", slog.LevelInfo, 10); len(before) != 0 {
		t.Errorf("g has lines of f: %v", before)
	}
	l.Unsubscribe(f)
}

// A subscriber that does not read misses lines. It gets their number, and does not delay others.
func TestASlowSubscriberMissesLines(t *testing.T) {
	l := NewLogBuffer()
	f, _ := l.Subscribe("f", slog.LevelInfo, 0)
	for n := range subscriberBuffer + 5 {
		l.addLine("f", testLine(n), true)
	}
	for range subscriberBuffer {
		if line := <-f.lines; line.Dropped != 0 {
			t.Fatalf("%+v", line)
		}
	}
	l.addLine("f", testLine(-1), true)
	if line := <-f.lines; line.Dropped != 5 || line.Text != "-1" {
		t.Errorf("%+v, want 5 dropped", line)
	}
	l.addLine("f", testLine(-2), true)
	if line := <-f.lines; line.Dropped != 0 {
		t.Errorf("reported twice: %+v", line)
	}
	l.Unsubscribe(f)
}

func TestSubscribersAreBounded(t *testing.T) {
	l := NewLogBuffer()
	var all []*Subscription
	for range MaxSubscribers {
		f, _ := l.Subscribe("f", slog.LevelInfo, 0)
		all = append(all, f)
	}
	if f, _ := l.Subscribe("f", slog.LevelInfo, 0); f != nil {
		t.Error("one too many may follow")
	}
	l.Unsubscribe(all[0])
	if f, _ := l.Subscribe("f", slog.LevelDebug, 0); f == nil {
		t.Error("none may follow in the place of one that left")
	}
}

// The handler keeps the lines about a function, however the logger was made, including lines below
// the log's level while a subscriber requests them.
func TestLogHandler(t *testing.T) {
	var text strings.Builder
	l := NewLogBuffer()
	l.SetApps(map[string][]string{"/a": {"f"}})
	log := slog.New(l.NewHandler(slog.NewTextHandler(&text, nil)))
	log.Info("about nobody")
	log.With("function", "f").Warn("one", "message", "m1", "took", time.Second, "error", errors.New("oh"), "attempt", 2)
	log.Info("two", "function", "g")
	log.With("app", "/a").WithGroup("of").Info("three", "x", slog.GroupValue(slog.Int("y", 1)))
	log.With("function", "f").Debug("not wanted")
	f, before := l.Subscribe("f", slog.LevelDebug, 10)
	if len(before) != 2 || before[0].Text != "one" || before[1].Text != "three" {
		t.Fatalf("%+v", before)
	}
	if a := before[0].Attrs; a["message"] != "m1" || a["took"] != "1s" || a["error"] != "oh" || a["attempt"] != int64(2) || a["function"] != nil {
		t.Errorf("%v", a)
	}
	if before[1].Attrs["of.x"] != "[y=1]" {
		t.Errorf("%v", before[1].Attrs)
	}
	if !log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug is wanted and not enabled")
	}
	log.With("function", "f").Debug("wanted")
	if line := <-f.lines; line.Text != "wanted" {
		t.Errorf("%+v", line)
	}
	// A line that only a subscriber requested is not kept: it would displace others.
	other, before := l.Subscribe("f", slog.LevelDebug, 10)
	if len(before) != 2 || before[1].Text != "three" {
		t.Errorf("kept: %+v", before)
	}
	l.Unsubscribe(other)
	l.Unsubscribe(f)
	if log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug is enabled without a subscriber")
	}
	if strings.Contains(text.String(), "wanted") || strings.Count(text.String(), "\n") != 4 {
		t.Errorf("the log is\n%s", text.String())
	}
}

// A function may have its own level, above or below that of all other lines.
func TestLevelsOfFunctions(t *testing.T) {
	b, out := NewLogBuffer(), new(strings.Builder)
	log := slog.New(b.NewHandler(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	b.SetLevels(slog.LevelWarn, map[string]slog.Level{"loud": slog.LevelDebug, "quiet": slog.LevelError})
	for _, function := range []string{"loud", "quiet", "other"} {
		log.With("function", function).Debug(function + " debug")
		log.Info(function+" info", "function", function)
		log.Warn(function+" warn", "function", function)
	}
	log.Info("daemon info")
	log.Warn("daemon warn")
	b.SetLevels(slog.LevelInfo, nil)
	log.Debug("at the end")
	var got []string
	for line := range strings.Lines(out.String()) {
		_, text, _ := strings.Cut(line, `msg="`)
		text, _, _ = strings.Cut(text, `"`)
		got = append(got, text)
	}
	if want := "loud debug,loud info,loud warn,other warn,daemon warn,at the end"; strings.Join(got, ",") != want {
		t.Errorf("the lines are %q; want %s", got, want)
	}
}
