package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
)

// profiled has functions that run until a file exists.
const profiled = `
const { existsSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const over = () => existsSync(path.join(__dirname, 'over'));
function compute() { const end = performance.now() + 5; while (performance.now() < end); }
function computeOther() { const end = performance.now() + 5; while (performance.now() < end); }
const pause = () => new Promise((resolve) => setTimeout(resolve, 1));
exports.orders = async function orders() {
  writeFileSync(path.join(__dirname, 'orders'), '');
  while (!over()) { compute(); await pause(); }
};
exports.once = function once() { for (let i = 0; i < 10; i++) computeOther(); };
exports.idle = async function idle() { await pause(); };
`

func TestProfile(t *testing.T) {
	t.Parallel()
	var app string
	p := startApp(t, files{"index.js": profiled}, func(c *workers.Config) { app = c.App }, "orders", "once", "idle")
	ended := make(chan error, 1)
	go func() {
		_, err := call(t, p, "orders", &triggers.Message{})
		ended <- err
	}()
	eventually(t, "it runs", func() bool {
		_, err := os.Stat(filepath.Join(app, "orders"))
		return err == nil
	})
	group := workers.GroupsOf(p, "orders")[0]
	for _, function := range []string{"orders", "once"} {
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			for range 20 {
				_, _ = call(t, p, "once", &triggers.Message{}) // the profile shows whether it ran
			}
		}()
		r, err := group.Profile(t.Context(), function, time.Second)
		if err != nil || r.Workers != 1 || len(r.Notes) > 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		<-stop
		found := make(map[string]int64)
		for _, s := range r.Stacks.All {
			var names []string
			for _, at := range s.Lines {
				line := r.Stacks.Lines[at]
				names = append([]string{line.Function}, names...)
				if line.Function == "compute" && (filepath.Base(line.File) != "index.js" || line.Line != 5) {
					t.Errorf("%+v", line)
				}
			}
			found[strings.Join(names, ";")] += s.Samples
		}
		want := "orders;compute"
		if function == "once" {
			want = "once;computeOther"
		}
		if found[want] == 0 {
			t.Errorf("%s: %v", function, found)
		}
		if function == "orders" && found["once;computeOther"] > 0 {
			t.Errorf("calls of another function are in the profile: %v", found)
		}
	}
	if err := os.WriteFile(filepath.Join(app, "over"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
