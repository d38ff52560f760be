package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errNoGrave = errors.New("there is no dead-letter queue; make it")

// graveless is a source that refuses rejections until made is closed.
type graveless struct {
	triggers.Trigger
	made <-chan struct{} // closed when the dead-letter queue exists
}

func (g graveless) Receive(ctx context.Context, n int) ([]*triggers.Delivery, error) {
	got, err := g.Trigger.Receive(ctx, n)
	for i, d := range got {
		got[i] = triggers.NewDelivery(d.Message, gravelessLease{g, d})
	}
	return got, err
}

type gravelessLease struct {
	g graveless
	d *triggers.Delivery
}

func (l gravelessLease) Settle(ctx context.Context, _ *triggers.Message, v triggers.Verdict) error {
	select {
	case <-l.g.made:
	default:
		if v.Kind == triggers.Reject {
			return errNoGrave
		}
	}
	return l.d.Settle(ctx, v)
}

// If a source accepts no dead letters, many waiting messages stop receiving, and then the daemon is
// not ready. The explanation of each message gives that reason.
func TestRefusedVerdictsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue, made := memory.New(time.Hour), make(chan struct{})
		f := apps.NewFunction("f", configs.Function{Timeout: configs.Duration(time.Minute), Retry: configs.Retry{MaxAttempts: 3}}, slog.New(slog.DiscardHandler))
		f.Trigger, f.Share = graveless{queue.Trigger(), made}, handlers.NewSlots(8).Share(0)
		f.Handler = handlers.Func(func(context.Context, *triggers.Message) ([]byte, error) {
			return nil, handlers.Reject(errors.New("no good"))
		})
		const sent = 1000
		for range sent {
			queue.Send(triggers.Message{})
		}
		receiving, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(receiving, t.Context(), t.Context()) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		d := New(nil)
		d.functions = []*apps.Function{f}
		d.phase.set(api.PhaseRunning)
		if reasons := fmt.Sprint(d.statusView().UnreadyReasons()); !strings.Contains(reasons, "nothing is received") || !strings.Contains(reasons, errNoGrave.Error()) {
			t.Errorf("not ready, since: %s", reasons)
		}
		if state, why := d.statusView().LimitingFactor(f, time.Now()); state != "blocked" || !strings.Contains(why, errNoGrave.Error()) {
			t.Errorf("the function is explained as %s: %s", state, why)
		}
		problems := f.ListProblems()
		if len(problems) != 1 || problems[0].Kind != api.ProblemUnsettled || !problems[0].Blocks || problems[0].Messages == 0 {
			t.Fatalf("the problems are %+v", problems)
		}
		e, found := status.ExplainInFlight(f, problems[0].Message, time.Now())
		if !found || e.State != "stuck" || !strings.Contains(e.Text, errNoGrave.Error()) {
			t.Errorf("the message is explained as %+v", e)
		}
		close(made)
		time.Sleep(time.Minute)
		synctest.Wait()
		if reasons := d.statusView().UnreadyReasons(); len(reasons) > 0 {
			t.Errorf("not ready, since: %v", reasons)
		}
		if n := f.Stats.ReadCounts().Rejected; n != sent {
			t.Errorf("%d of %d were rejected", n, sent)
		}
		stop()
		if err := errors.Join(<-ended, f.Close()); err != nil {
			t.Error(err)
		}
		queue.Close()
	})
}
