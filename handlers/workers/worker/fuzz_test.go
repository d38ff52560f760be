package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// frames are some frames of JSON, as bytes.
func frames(f testing.TB, kind protocol.Kind, text string) []byte {
	f.Helper()
	out, err := protocol.AppendJSON(nil, kind, rawJSON(text))
	if err != nil {
		f.Fatal(err)
	}
	return out
}

type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

// answerOf returns a RESULT.
func answerOf(id byte, status protocol.Status, payload string) []byte {
	return append([]byte{byte(1 + 17 + len(payload)), 0, 0, 0, byte(protocol.Result), id, 0, 0, 0, byte(status), 9, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0}, payload...)
}

// ended is a process that has ended. Its socket is closed; a test gives it another, and plays the
// other end. Killing the process has no effect.
func ended(t testing.TB, reaper *childproc.Reaper) *process.Process {
	t.Helper()
	starter := process.Starter{Command: process.Command{Path: "true"}, Reaper: reaper, Log: slog.New(slog.DiscardHandler)}
	dead, err := starter.Start()
	if err != nil {
		t.Fatal(err)
	}
	<-dead.Ended()
	if err := dead.Conn.Close(); err != nil {
		t.Fatal(err)
	}
	return dead
}

// FuzzWorker checks that, whatever a worker sends, the pool does not panic or hang, each call gets
// one reply, and the worker's end has a cause.
func FuzzWorker(f *testing.F) {
	reaper := childproc.New(slog.New(slog.DiscardHandler))
	f.Cleanup(reaper.Close)
	dead := ended(f, reaper)

	welcome := frames(f, protocol.Welcome, `{"protocol":4,"pid":1,"language":"x","version":"1","capabilities":["cancel","log","stats","session_state","outputs"]}`)
	ready := frames(f, protocol.Ready, `{"functions":[{"name":"f","kind":"sync"},{"name":"g","kind":"async"}]}`)
	log := frames(f, protocol.Log, `{"id":0,"level":"WARNING","logger":"l","text":"t"}`)
	stats := frames(f, protocol.Stats, `{"period_us":100000,"lags_us":[1,200000000,-5]}`)
	blocked := frames(f, protocol.Blocked, `{"block":1,"id":0,"function":1,"message":"m","took_us":60000,"asleep_us":1,"over":false,"place":"a.py:1 in g","stack":"s"}`)
	imported := frames(f, protocol.Imported, `{"paths":["/app/a.py"]}`)
	for _, seed := range [][]byte{
		imported, slices.Concat(welcome, imported, ready, imported), slices.Concat(welcome, frames(f, protocol.Imported, `{"paths":1}`)),
		slices.Concat(welcome, frames(f, protocol.Failed, `{}`), frames(f, protocol.Blocked, `{"block":1,"id":-1,"function":-1,"took_us":60000,"over":true}`)),
		nil, welcome, slices.Concat(welcome, ready), slices.Concat(welcome, welcome), ready,
		slices.Concat(welcome, log, frames(f, protocol.Failed, `{"summary":"s","detail":"d"}`), log),
		slices.Concat(welcome, frames(f, protocol.Ready, `{"functions":[]}`)),
		frames(f, protocol.Welcome, `{"protocol":99}`), frames(f, protocol.Welcome, `null`), frames(f, protocol.Stats, `null`),
	} {
		f.Add(seed, []byte{}, byte(0))
		f.Add(seed, []byte{0, 7}, byte(1))
	}
	for _, seed := range [][]byte{
		slices.Concat(log, answerOf(1, protocol.Done, "x"), stats, answerOf(0, protocol.Failure, `{"summary":"s"}`)),
		slices.Concat(answerOf(0, protocol.Done, ""), answerOf(0, protocol.Done, "")),
		slices.Concat(blocked, frames(f, protocol.Blocked, `{"block":2,"id":-1,"function":-1,"took_us":9e9,"over":true}`), frames(f, protocol.Blocked, `{"function":2}`)),
		frames(f, protocol.Blocked, `{"function":1,"took_us":-1}`), frames(f, protocol.Blocked, `[]`),
		answerOf(9, protocol.Done, ""), answerOf(0, 6, ""), answerOf(0, protocol.State, "\x01\x00\x00\x00so"), answerOf(0, protocol.State, "\xff"),
		answerOf(0, protocol.Done|64, "\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00xplain"), answerOf(0, protocol.Done|64, "\x0b\x00\x00\x00\x07\x00"), answerOf(0, protocol.State|64|128, "\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"),
		slices.Concat(partOf(0, 1, head, "one"), partOf(1, 3, head, ""), partOf(0, 2, "", "two"), answerOf(0, protocol.Done, "")), partOf(0, 1, "{", ""), partOf(0, 0, "", "x"),
		slices.Concat(partOf(0, 1, head, "one"), answerOf(0, protocol.Failure, `{"summary":"s"}`)), slices.Concat(partOf(0, 3, head, ""), partOf(0, 0, "", "")),
		answerOf(0, protocol.Retry, `{"after":1e300}`), answerOf(0, protocol.Reject, `[]`), frames(f, protocol.Forked, `{}`),
		{0, 0, 0, 0}, {1, 0, 0, 0, 0}, {0xFF, 0xFF, 0xFF, 0xFF, 68}, {10, 0, 0, 0, 68, 0},
	} {
		f.Add(seed, []byte{}, byte(4))
		f.Add(seed, []byte{0}, byte(2))
	}
	f.Fuzz(func(t *testing.T, data, pieces []byte, stage byte) {
		conn, theirs, err := childproc.Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		side, err := net.FileConn(theirs)
		if err = errors.Join(err, theirs.Close()); err != nil {
			t.Fatal(err)
		}
		heard := make(chan struct{})
		go func() { defer close(heard); _, _ = io.Copy(io.Discard, side) }()
		group := NewGroup(Config{
			App: "/app", Functions: []Function{{Name: "f", Outputs: []string{"a"}, Reply: true}, {Name: "g", SessionState: true}}, MaxFrame: 1 << 20, WatchLoop: true,
			Log:         slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Settings:    func() Settings { return Settings{Threads: 1, Coroutines: 512} },
			Changed:     func() {},
			RoomChanged: func() {},
			Retired:     func(process.Cause) {},
			Blocked: func(b BlockReport) {
				if b.Time < leastBlock {
					t.Errorf("a block of %v", b.Time)
				}
			},
			Imported: func([]string) {},
			Lagged: func(wait time.Duration) {
				if wait < 0 {
					t.Errorf("a wait of %v", wait)
				}
			},
		})
		dead.Conn = conn
		w := group.NewWorker(dead)
		if err := w.BeginHandshake(stage&0x80 != 0); err != nil {
			t.Fatal(err)
		}
		stage &= 0x0F
		var calls []*Call
		if stage > 0 {
			_, _ = side.Write(welcome)
		}
		if stage > 1 {
			_, _ = side.Write(ready)
			<-w.Loaded
			for range stage - 2 {
				c := NewAwaitedCall(context.Background(), 0, &triggers.Message{ID: "m", Body: []byte("x")})
				if w.Submit(c) {
					calls = append(calls, c)
				}
			}
		}
		for at, rest := 0, data; len(rest) > 0; at++ {
			n := len(rest)
			if len(pieces) > 0 && at < 1000 { // more would only take time
				n = min(n, 1+int(pieces[at%len(pieces)]))
			}
			if _, err := side.Write(rest[:n]); err != nil {
				break // it was killed
			}
			rest = rest[n:]
		}
		if err := side.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.Gone:
		case <-time.After(time.Minute):
			t.Fatal("the worker is not gone")
		}
		w.Wait()
		_ = side.Close()
		<-heard
		if w.Reason == nil || w.Cause == "" || (w.Cause == process.CauseProtocol) != errors.Is(w.Reason, protocol.ErrProtocol) {
			t.Fatalf("%s: %v", w.Cause, w.Reason)
		}
		for i, c := range calls {
			if n := len(c.replies); n != 1 && c.stream == nil { // a response in parts may still be passed on
				t.Fatalf("call %d has %d replies", i, n)
			}
			select {
			case r := <-c.replies:
				if r.Lost == nil {
					_, _ = r.HandlerResult(context.Background())
				}
			case <-time.After(time.Minute):
				t.Fatalf("call %d has no reply", i)
			}
		}
	})
}
