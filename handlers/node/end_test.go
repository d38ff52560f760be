package node

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// Functions registered with atExit are called at a worker's end, the last one first.
func TestAtExit(t *testing.T) {
	t.Parallel()
	log := new(lines)
	p := startApp(t, files{"index.js": `
const drover = require('drover');
drover.atExit(() => console.log('hook given first'));
drover.atExit(() => { throw new Error('of a hook'); });
drover.atExit(async () => { await new Promise((resolve) => setTimeout(resolve, 5)); console.log('hook given last'); });
process.on('exit', () => console.log('the listener of exit'));
exports.f = () => 'ok';
`}, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
		t.Fatal(err)
	}
	p.Scale(0)
	log.wait(t, "the listener of exit")
	text := log.String()
	if a, b := strings.Index(text, "hook given last"), strings.Index(text, "hook given first"); a < 0 || b < a {
		t.Errorf("the last given is not first:\n%s", text)
	}
	log.wait(t, "level=ERROR", "a function given to atExit failed: Error: of a hook")
}

func TestAtExitIsBounded(t *testing.T) {
	t.Parallel()
	log := new(lines)
	p := startApp(t, files{"index.mjs": `
import { atExit } from 'drover';
atExit(() => { console.log('hanging'); return new Promise(() => {}); });
export const f = () => 'ok';
`}, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	pid := p.Stats().PIDs[0]
	p.Scale(0)
	log.wait(t, "msg=hanging")
	log.wait(t, "level=WARN", "did not end within 2 s")
	gone(t, pid)
}

func TestALongLineIsCutInPieces(t *testing.T) {
	t.Parallel()
	log := new(lines)
	p := startApp(t, files{"index.js": `
exports.f = () => { console.log('a'.repeat(40000) + ' the end'); console.error('b'.repeat(40000) + ' its end'); process.stdout.write('c'.repeat(40000)); process.stdout.write(' at last\n'); };
`}, func(c *workers.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }, "f")
	if _, err := call(t, p, "f", &triggers.Message{}); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "aaa the end")
	log.wait(t, "level=ERROR", "bbb its end")
	log.wait(t, "ccc at last")
}
