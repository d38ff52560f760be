package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// reloaded is a directory with a configuration that tests change.
type reloaded struct {
	t    *testing.T
	dir  string
	file string
}

func newReloaded(t *testing.T, config, app string) *reloaded {
	t.Helper()
	dir := write(t, map[string]string{"drover.yaml": config, "app/function_app.py": app})
	return &reloaded{t: t, dir: dir, file: filepath.Join(dir, "drover.yaml")}
}

// write replaces a file in one step: others may be reading it.
func (r *reloaded) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		r.t.Fatal(err)
	}
}

// goDaemon runs Go functions over an embedded server.
func goDaemon(t *testing.T, r *reloaded, funcs handlers.Funcs) (d *Daemon, stop func() error) {
	t.Helper()
	cfg := r.load()
	ready, ended := make(chan struct{}), make(chan error, 1)
	running, cancel := context.WithCancel(context.Background())
	d = New(cfg, WithFuncs(funcs), WithReady(func() { close(ready) }))
	go func() { ended <- d.Run(running) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return d, stop
}

func (r *reloaded) load() *configs.Config {
	r.t.Helper()
	cfg, err := configs.Load(r.file, os.LookupEnv)
	if err != nil {
		r.t.Fatal(err)
	}
	return cfg
}

func TestWhatNeedsARestart(t *testing.T) {
	t.Parallel()
	const config = "%s\nconnections: {local: {nats: embedded, sync: %s}}\nfunctions:\n  f: {trigger: {nats: {}}, handler: {go: f}}\n"
	r := newReloaded(t, fmt.Sprintf(config, "", "2m"), "")
	d, _ := goDaemon(t, r, handlers.Funcs{"f": func(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }})
	for _, c := range []struct{ head, sync, want string }{
		{"data_dir: other", "2m", "data_dir"},
		{"log: {format: json}", "2m", "log.format"},
		{`probes: {listen: "127.0.0.1:0"}`, "2m", "probes"},
		{"admin: {listen: off}", "2m", "admin"},
		{"scale: {instances: {max: 3}}", "2m", "scale.instances"},
		{"", "1m", "connections.local (the embedded server)"},
	} {
		r.write("drover.yaml", fmt.Sprintf(config, c.head, c.sync))
		_, err := d.Reload(t.Context(), r.load())
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "need a restart") {
			t.Errorf("%s: %v", c.want, err)
		}
	}
	if s := d.statusView().Reload(); s.Failed != 6 || s.Done != 0 || s.Refused == "" {
		t.Errorf("%+v", s)
	}
	a, queue, cfg := adminDaemon(t, nil)
	defer queue.Close()
	changed := *cfg
	f := changed.Functions["f"]
	f.Concurrency = 7
	changed.Functions = map[string]configs.Function{"f": f}
	if _, err := a.Reload(t.Context(), &changed); err == nil || !strings.Contains(err.Error(), "a trigger or a handler from the program") {
		t.Errorf("a trigger of the program's: %v", err)
	}
	changed.Functions = map[string]configs.Function{"g": f}
	if _, err := a.Reload(t.Context(), &changed); err == nil || !strings.Contains(err.Error(), "changed or removed by a reload") {
		t.Errorf("a trigger of the program's is to go: %v", err)
	}
	queue.Send(triggers.Message{Body: []byte("x")}) // the refused reload has not closed it
	until(t, newPrinted(), "a message is done", func() bool { return a.Status()[0].Done == 1 })
	if _, err := a.ReloadFile(t.Context()); err == nil || !strings.Contains(err.Error(), "built by a program") {
		t.Errorf("a configuration of the program's: %v", err)
	}
}
