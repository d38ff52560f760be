package python

import (
	"testing"

	"github.com/drover-run/drover/triggers"
)

// An Output sets when its message can be received, and when it expires.
func TestOutputWithASchedule(t *testing.T) {
	t.Parallel()
	p := startApp(t, `
import datetime, drover
zone = datetime.timezone(datetime.timedelta(hours=2))
def f(message):
    return drover.Output("x", scheduled_at=datetime.datetime(2026, 12, 1, 17, 4, 5, 250000, zone), time_to_live=datetime.timedelta(minutes=1, milliseconds=500))
def naive(message):
    return drover.Output("x", scheduled_at=datetime.datetime(2026, 12, 1))
`, nil, "f", "naive")
	for function, want := range map[string]triggers.Properties{
		"f":     {triggers.ScheduledAt: "2026-12-01T15:04:05.250000+00:00", triggers.TimeToLive: "60.5"},
		"naive": {triggers.ScheduledAt: "2026-12-01T00:00:00+00:00"},
	} {
		ctx := &collecting{Context: soon(t)}
		if _, err := handle(ctx, handler(t, p, function), &triggers.Message{Attempt: 1}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{triggers.ScheduledAt, triggers.TimeToLive} {
			if ctx.about[name] != want[name] {
				t.Errorf("%s: %s is %q, want %q", function, name, ctx.about[name], want[name])
			}
		}
		if _, _, err := triggers.ReadSchedule(ctx.about); err != nil {
			t.Error(err)
		}
	}
}
