package cli

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/triggers"
)

func TestPause(t *testing.T) {
	t.Parallel()
	d, queue, cfg := adminDaemon(t, nil)
	client, err := admin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.PostEmpty(t.Context(), api.PausePath("f", true, time.Time{})); err != nil {
		t.Fatal(err)
	}
	queue.Send(triggers.Message{Body: []byte("x")})
	// The backlog of the queue shows that the message was not received.
	if b, err := d.Backlog(t.Context(), "f"); err != nil || b.Ready != 1 || d.Status()[0].Received != 0 || !d.Status()[0].Paused {
		t.Errorf("a paused function: %+v, %v, %+v", b, err, d.Status()[0])
	}
	if err := client.PostEmpty(t.Context(), api.PausePath("f", false, time.Time{})); err != nil {
		t.Fatal(err)
	}
	until(t, newPrinted(), "the message is done", func() bool { return d.Status()[0].Done == 1 })

	if err := client.PostEmpty(t.Context(), api.PausePath("f", true, time.Now().Add(time.Second))); err != nil {
		t.Fatal(err)
	}
	queue.Send(triggers.Message{Body: []byte("y")})
	until(t, newPrinted(), "the pause ends by itself", func() bool { s := d.Status()[0]; return s.Done == 2 && !s.Paused })

	if err := client.PostEmpty(t.Context(), api.PausePath("g", true, time.Time{})); err == nil || !strings.Contains(err.Error(), `there is no function "g"`) {
		t.Errorf("a function that is not there: %v", err)
	}
	if err := client.PostEmpty(t.Context(), "/v1/functions/f/pause?until=tomorrow"); err == nil || !strings.Contains(err.Error(), "until is not a time") {
		t.Errorf("a time that is none: %v", err)
	}
}

// A pause reaches all instances, including those that start later.
func TestPauseOfInstances(t *testing.T) {
	t.Parallel()
	s := newScaled(t, 2)
	cmd, out, ended := child(t, "run", s.file)
	until(t, out, "two instances", func() bool { return len(pids(t, out)) == 2 })
	if status, _, errs := command(t.Context(), nil, nil, "pause", "work", "-c", s.file); status != ExitOK {
		t.Fatal(errs)
	}
	paused := func() bool {
		_, text, _ := command(t.Context(), nil, nil, "status", "-c", s.file)
		return strings.Contains(text, "paused")
	}
	until(t, out, "the pause is seen", paused)
	if err := syscall.Kill(pids(t, out)[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, out, "the pause reaches the instance that replaces it", func() bool { return strings.Count(out.String(), "msg=\"function paused\" instance=") >= 3 })
	s.send(t, 20)
	if n, _ := s.ended(t); n != 0 {
		t.Errorf("%d messages were handled while the function was paused", n)
	}
	if status, _, errs := command(t.Context(), nil, nil, "resume", "work", "-c", s.file); status != ExitOK {
		t.Fatal(errs)
	}
	s.allEnd(t, out)
	for args, want := range map[string]string{"pause work --until never": "--until is \"never\"", "pause work --until=-5s": "is over already", "pause nothing": "there is no function"} {
		if status, _, errs := command(t.Context(), nil, nil, append(strings.Fields(args), "-c", s.file)...); status == ExitOK || !strings.Contains(errs, want) {
			t.Errorf("%s: status %d, %s", args, status, errs)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := waitFor(t, ended, out); status != ExitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}
