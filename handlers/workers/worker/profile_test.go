package worker

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/profiling"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// readKind reads frames until one of a type, and returns its payload.
func readKind(t *testing.T, side net.Conn, p *protocol.Parser, want protocol.Kind) string {
	t.Helper()
	for {
		kind, payload, err := p.NextFrame()
		switch {
		case err != nil:
			t.Fatal(err)
		case kind == want:
			return string(payload)
		case kind != 0:
			continue
		}
		n, err := side.Read(p.ReadBuffer())
		p.AdvanceRead(n)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// ready makes a pretended worker ready.
func ready(t *testing.T, w *Worker, side net.Conn, capabilities string) {
	t.Helper()
	for _, frame := range [][]byte{
		frames(t, protocol.Welcome, `{"protocol":4,"pid":1,"language":"x","version":"1","capabilities":[`+capabilities+`]}`),
		frames(t, protocol.Ready, `{"functions":[{"name":"f","kind":"sync"}]}`),
	} {
		if _, err := side.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	<-w.Loaded
}

func TestProfile(t *testing.T) {
	reaper := childproc.New(nil)
	t.Cleanup(reaper.Close)
	w, side := pretended(t, reaper, []Function{{Name: "f"}})
	group := w.group
	if _, err := group.Profile(t.Context(), "g", time.Second); err == nil {
		t.Error("a function that the pool does not have was profiled")
	}
	type outcome struct {
		profiling.Result
		err error
	}
	done := make(chan outcome, 1)
	profile := func(ctx context.Context) {
		go func() {
			r, err := group.Profile(ctx, "f", time.Hour)
			done <- outcome{r, err}
		}()
	}
	// It begins before the worker is ready, which then joins; and it is interrupted.
	ctx, cancel := context.WithCancel(t.Context())
	profile(ctx)
	p := protocol.NewParser(protocol.DefaultMax)
	ready(t, w, side, `"profile"`)
	if got := readKind(t, side, p, protocol.Profile); got != `{"profile":1,"function":0,"period_us":10000}` {
		t.Errorf("the worker got %s", got)
	}
	if _, err := group.Profile(t.Context(), "f", time.Second); !errors.Is(err, ErrProfiled) {
		t.Errorf("a second profile: %v", err)
	}
	cancel()
	if got := <-done; !errors.Is(got.err, context.Canceled) {
		t.Errorf("interrupted: %+v", got)
	}
	if got := readKind(t, side, p, protocol.Profile); got != `{"profile":1,"function":0,"period_us":0}` {
		t.Errorf("the worker got %s", got)
	}
	// Its late answer is dropped. The next profile has another number; the worker ends during it.
	if _, err := side.Write(frames(t, protocol.Profiled, `{"profile":1}`)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	profile(ctx)
	if got := readKind(t, side, p, protocol.Profile); got != `{"profile":2,"function":0,"period_us":10000}` {
		t.Errorf("the worker got %s", got)
	}
	if err := side.Close(); err != nil {
		t.Fatal(err)
	}
	<-w.Gone
	cancel()
	<-done
	if group.profile != nil {
		t.Error("the profile is still there")
	}
}

// A worker without the capability is never sent a PROFILE, as one of an earlier version of drover.
func TestProfileOfAnOldWorker(t *testing.T) {
	reaper := childproc.New(nil)
	t.Cleanup(reaper.Close)
	w, side := pretended(t, reaper, []Function{{Name: "f"}})
	ready(t, w, side, `"log"`)
	if _, err := w.group.Profile(t.Context(), "f", time.Hour); !errors.Is(err, profiling.ErrUnsupported) {
		t.Error(err)
	}
}
