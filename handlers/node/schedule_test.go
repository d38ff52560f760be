package node

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers"
)

// describedContext is the context of a call. It keeps the properties of the result.
type describedContext struct {
	context.Context
	about triggers.Properties
}

func (d *describedContext) Describe(about triggers.Properties) { d.about = about }

// An Output sets when its message can be received, and when it expires.
func TestOutputWithASchedule(t *testing.T) {
	t.Parallel()
	p := startApp(t, files{"index.js": `
const { Output } = require('drover');
exports.f = () => new Output('x', { scheduledAt: new Date(Date.UTC(2026, 11, 1, 15, 4, 5, 250)), timeToLive: 60_500 });
exports.late = () => new Output('x', { scheduledAt: 'soon' });
exports.short = () => new Output('x', { timeToLive: 0 });
`}, nil, "f", "late", "short")
	ctx := &describedContext{Context: soon(t)}
	if _, err := handle(ctx, t, p, "f", &triggers.Message{Attempt: 1}); err != nil {
		t.Fatal(err)
	}
	if at, life := ctx.about[triggers.ScheduledAt], ctx.about[triggers.TimeToLive]; at != "2026-12-01T15:04:05.250Z" || life != "60.500" {
		t.Errorf("scheduled at %s for %s", at, life)
	}
	for function, want := range map[string]string{"late": "scheduledAt of an Output must be a Date", "short": "timeToLive of an Output must be a number of milliseconds"} {
		if _, err := call(t, p, function, &triggers.Message{Attempt: 1}); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v, want %q", function, err, want)
		}
	}
}
