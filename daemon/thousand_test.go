package daemon

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// TestAThousandFunctions runs a thousand functions on the embedded server: at rest they hold few
// descriptors, and a stop closes them in parallel.
func TestAThousandFunctions(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("descriptors are counted in /proc")
	}
	const functions, most = 1000, 300
	dir := t.TempDir()
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := descriptors()
	for life := range 2 {
		cfg := configs.New()
		cfg.DataDir, cfg.Admin.Listen = dir, "off"
		cfg.Functions = make(map[string]configs.Function)
		for i := range functions {
			cfg.Functions[fmt.Sprint("f", i)] = configs.Function{Trigger: configs.Trigger{NATS: &configs.NATSTrigger{}}, Handler: configs.Handler{Go: "f"}}
		}
		ctx, stop := context.WithCancel(t.Context())
		ready, ended := make(chan struct{}), make(chan error, 1)
		d := New(cfg, WithReady(func() { close(ready) }), WithFuncs(handlers.Funcs{"f": func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }}))
		go func() { ended <- d.Run(ctx) }()
		select {
		case <-ready:
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(patience):
			t.Fatal("it does not start")
		}
		// In the first run, the server has just created the streams and has their files open.
		if n := descriptors() - before; life > 0 && n > most {
			t.Errorf("%d functions at rest have %d descriptors", functions, n)
		}
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("it does not stop")
		}
	}
}
