package triggertest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// Graveyard is one empty queue at a real server, and the way to its dead letters.
type Graveyard struct {
	*Source
	// OpenDead returns one more reader of the dead letters. The graveyard closes it
	// at the test's end, unless the test did.
	OpenDead func(t testing.TB) triggers.DeadLetters
	// Half does the first half of a replay, and dies: the message is sent again, and its
	// dead letter still exists. The reader is closed.
	Half func(t testing.TB, d triggers.DeadLetters, l triggers.DeadLetter)
	// Doubtful reports that the source cannot distinguish that from a replay that was not started.
	Doubtful bool
	// NewIDs reports that a replayed message has another ID.
	NewIDs bool
}

// RunDeadLetters runs the suite for dead letters. open makes an empty queue for
// one test.
func RunDeadLetters(t *testing.T, open func(t *testing.T) *Graveyard) {
	tests := []struct {
		name string
		run  func(t *testing.T, g *Graveyard)
	}{
		{"none yet", testNoneYet},
		{"a dead letter says all", testSaysAll},
		{"to look removes none", testLookRemovesNone},
		{"replayed with attempt 1", testReplay},
		{"what fails again is not browsed again", testFailsAgain},
		{"removed", testRemove},
		{"replayed once", testReplayedOnce},
		{"a replay that was killed", testKilled},
		{"a replay that was killed before it began", testNotBegun},
		{"bodies are replayed", testReplayedBodies},
		{"many", testManyDead},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// kill sends messages and rejects them.
func (g *Graveyard) kill(t *testing.T, tr triggers.Trigger, ms ...triggers.Message) {
	t.Helper()
	for some := range slices.Chunk(ms, 50) {
		g.Send(t, some...)
		for _, d := range receive(t, tr, len(some)) {
			settle(t, d, triggers.Verdict{Kind: triggers.Reject, Reason: "no good", Function: "billing"})
		}
	}
}

// browse reads all dead letters, in pages.
func browse(t *testing.T, d triggers.DeadLetters, page int) (out []triggers.DeadLetter) {
	t.Helper()
	for {
		got, err := d.Browse(t.Context(), page)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			return out
		}
		if len(got) > page {
			t.Fatalf("Browse(%d) returned %d", page, len(got))
		}
		out = append(out, got...)
	}
}

// left checks how many dead letters another reader sees, once the last is closed.
func (g *Graveyard) left(t *testing.T, want int) []triggers.DeadLetter {
	t.Helper()
	d := g.OpenDead(t)
	all := browse(t, d, 50)
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(all) != want {
		t.Errorf("%d dead letters are left, want %d", len(all), want)
	}
	return all
}

func replay(t *testing.T, d triggers.DeadLetters, ls ...triggers.DeadLetter) {
	t.Helper()
	for _, l := range ls {
		if err := d.Replay(t.Context(), l, time.Time{}); err != nil {
			t.Fatalf("replaying %s: %v", l.ID, err)
		}
	}
}

func closeDead(t *testing.T, d triggers.DeadLetters) {
	t.Helper()
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func bodiesOf(ls []triggers.DeadLetter) (out []string) {
	for _, l := range ls {
		out = append(out, string(l.Message.Body))
	}
	return out
}

func testNoneYet(t *testing.T, g *Graveyard) {
	g.Open(t)
	g.left(t, 0)
}

func testSaysAll(t *testing.T, g *Graveyard) {
	tr := g.Open(t)
	before := time.Now().Add(-time.Minute)
	g.Send(t, triggers.Message{Body: []byte("bad\x00one"), Attributes: map[string]string{"Customer": "42"}})
	d := receive(t, tr, 1)[0]
	id, subject := d.Message.ID, d.Message.Subject
	settle(t, d, triggers.Verdict{Kind: triggers.Retry})
	settle(t, receive(t, tr, 1)[0], triggers.Verdict{
		Kind: triggers.Reject, Reason: "no such customer", Detail: "line 1\nline 2", Function: "billing",
	})
	all := g.left(t, 1)
	if len(all) != 1 {
		return
	}
	l := all[0]
	if l.Reason != "no such customer" || l.Detail != "line 1\nline 2" || l.Function != "billing" || l.Message.Attempt != 2 {
		t.Errorf("it says: reason %q, detail %q, function %q, attempt %d", l.Reason, l.Detail, l.Function, l.Message.Attempt)
	}
	if l.Died.Before(before) || l.Died.After(time.Now().Add(time.Minute)) {
		t.Errorf("it died at %v", l.Died)
	}
	if l.ID == "" || string(l.Message.Body) != "bad\x00one" || l.Message.ID != id || l.Message.Subject != subject {
		t.Errorf("dead letter %q is of message %q, subject %q, body %q; want %q, %q", l.ID, l.Message.ID, l.Message.Subject, l.Message.Body, id, subject)
	}
	if !g.NoAttributes && (len(l.Message.Attributes) != 1 || l.Message.Attributes["Customer"] != "42") {
		t.Errorf("its attributes are %v", l.Message.Attributes)
	}
}

func testLookRemovesNone(t *testing.T, g *Graveyard) {
	g.kill(t, g.Open(t), text("1", "2", "3", "4", "5")...)
	for range 2 {
		d := g.OpenDead(t)
		all := browse(t, d, 2)
		closeDead(t, d)
		got := bodiesOf(all)
		if g.Reorders {
			slices.Sort(got)
		}
		if !slices.Equal(got, []string{"1", "2", "3", "4", "5"}) {
			t.Errorf("%q", got)
		}
	}
}

func testReplay(t *testing.T, g *Graveyard) {
	tr := g.Open(t)
	g.Send(t, triggers.Message{Body: []byte("again"), Attributes: map[string]string{"Customer": "42"}})
	first := receive(t, tr, 1)[0]
	settle(t, first, triggers.Verdict{Kind: triggers.Retry})
	settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Reject, Reason: "no", Detail: "long", Function: "billing"})
	for range 2 { // and again: nothing adds up
		d := g.OpenDead(t)
		replay(t, d, browse(t, d, 10)...)
		closeDead(t, d)
		again := receive(t, tr, 1)[0]
		wantAttempt(t, again, 1)
		m := again.Message
		if string(m.Body) != "again" || m.Subject != first.Message.Subject || m.OrderingKey != first.Message.OrderingKey || m.ID != first.Message.ID && !g.NewIDs {
			t.Errorf("%+v came again; it was %+v", m, first.Message)
		}
		if !g.NoAttributes && (len(m.Attributes) != 1 || m.Attributes["Customer"] != "42") {
			t.Errorf("its attributes are %v", m.Attributes)
		}
		g.left(t, 0)
		settle(t, again, triggers.Verdict{Kind: triggers.Reject, Reason: "still no", Function: "billing"})
		if all := g.left(t, 1); len(all) == 1 && (all[0].Reason != "still no" || all[0].Detail != "" || all[0].Message.Attempt != 1) {
			t.Errorf("the second time it says %+v", all[0])
		}
	}
}

func testFailsAgain(t *testing.T, g *Graveyard) {
	tr := g.Open(t)
	g.kill(t, tr, text("1", "2", "3")...)
	d := g.OpenDead(t)
	for n := 0; ; n++ {
		got, err := d.Browse(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			if n != 3 {
				t.Errorf("%d dead letters, want 3", n)
			}
			break
		}
		if n == 3 {
			t.Fatal("what failed again comes again, and would for ever")
		}
		replay(t, d, got...)
		settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Reject, Reason: "still", Function: "billing"})
	}
	closeDead(t, d)
	g.left(t, 3)
}

func testRemove(t *testing.T, g *Graveyard) {
	tr := g.Open(t)
	g.kill(t, tr, text("1", "2", "3")...)
	d := g.OpenDead(t)
	all := browse(t, d, 10)
	for range 2 { // the second time it is gone
		for _, l := range all {
			if string(l.Message.Body) != "2" {
				continue
			}
			if err := d.Remove(t.Context(), l); err != nil {
				t.Error(err)
			}
		}
	}
	closeDead(t, d)
	got := bodiesOf(g.left(t, 2))
	slices.Sort(got)
	if !slices.Equal(got, []string{"1", "3"}) {
		t.Errorf("%q are left", got)
	}
	g.gone(t, tr)
}

func testReplayedOnce(t *testing.T, g *Graveyard) {
	tr := g.Open(t)
	g.kill(t, tr, text("once")...)
	d := g.OpenDead(t)
	all := browse(t, d, 10)
	replay(t, d, append(all, all...)...)
	closeDead(t, d)
	done(t, receive(t, tr, 1)...)
	g.gone(t, tr)
	g.left(t, 0)
}

// The message is back, and then the replay is killed. The next one must not send
// it again.
func testKilled(t *testing.T, g *Graveyard) {
	tr := g.Open(t)
	g.kill(t, tr, text("half")...)
	tried := time.Now()
	d := g.OpenDead(t)
	all := browse(t, d, 10)
	if len(all) != 1 {
		t.Fatalf("%d dead letters", len(all))
	}
	g.Half(t, d, all[0])
	d = g.OpenDead(t)
	all = browse(t, d, 10)
	if len(all) != 1 {
		t.Fatalf("%d dead letters after half a replay", len(all))
	}
	err := d.Replay(t.Context(), all[0], tried)
	closeDead(t, d)
	left := 0
	if g.Doubtful {
		left = 1
		if !errors.Is(err, triggers.ErrDoubtful) {
			t.Errorf("%v; want ErrDoubtful", err)
		}
	} else if err != nil {
		t.Fatal(err)
	}
	done(t, receive(t, tr, 1)...)
	g.gone(t, tr)
	g.left(t, left)
}

// A replay was killed before it sent the message. The next one sends it, or reports
// that it cannot know.
func testNotBegun(t *testing.T, g *Graveyard) {
	tr := g.Open(t)
	g.kill(t, tr, text("not yet")...)
	d := g.OpenDead(t)
	all := browse(t, d, 10)
	if len(all) != 1 {
		t.Fatalf("%d dead letters", len(all))
	}
	err := d.Replay(t.Context(), all[0], time.Now())
	closeDead(t, d)
	if errors.Is(err, triggers.ErrDoubtful) {
		g.left(t, 1) // nothing is lost
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	done(t, receive(t, tr, 1)...)
	g.left(t, 0)
}

func testReplayedBodies(t *testing.T, g *Graveyard) {
	tr := g.Open(t)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	want := [][]byte{{}, every, bytes.Repeat(every, 64), []byte("\r\n\x00"), []byte("käse ☃")}
	for _, body := range want {
		g.kill(t, tr, triggers.Message{Body: body})
		d := g.OpenDead(t)
		all := browse(t, d, 10)
		if len(all) != 1 || !bytes.Equal(all[0].Message.Body, body) {
			t.Fatalf("%d dead letters, not one with the body of %d bytes", len(all), len(body))
		}
		replay(t, d, all...)
		closeDead(t, d)
		again := receive(t, tr, 1)[0]
		if !bytes.Equal(again.Message.Body, body) {
			t.Errorf("a body of %d bytes was replayed as %d bytes, or other ones", len(body), len(again.Message.Body))
		}
		done(t, again)
	}
}

// Many at once; every third one stays: none is duplicated or lost.
func testManyDead(t *testing.T, g *Graveyard) {
	const n = 200
	tr := g.Open(t)
	var bodies []string
	for i := range n {
		bodies = append(bodies, fmt.Sprint(i))
	}
	g.kill(t, tr, text(bodies...)...)
	d := g.OpenDead(t)
	all := browse(t, d, 64)
	if len(all) != n {
		t.Fatalf("%d dead letters of %d", len(all), n)
	}
	back := make(map[string]int)
	var lanes sync.WaitGroup
	room := make(chan struct{}, 16)
	for i, l := range all {
		if i%3 == 2 {
			continue
		}
		back[string(l.Message.Body)]++
		room <- struct{}{}
		lanes.Go(func() {
			if err := d.Replay(t.Context(), l, time.Time{}); err != nil {
				t.Error(err)
			}
			<-room
		})
	}
	lanes.Wait()
	closeDead(t, d)
	for range len(back) {
		again := receive(t, tr, 1)[0]
		back[string(again.Message.Body)]--
		done(t, again)
	}
	for body, count := range back {
		if count != 0 {
			t.Errorf("%q was replayed and came %d times", body, 1-count)
		}
	}
	g.gone(t, tr)
	g.left(t, n/3)
}
