package apps

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/posting"
	"github.com/drover-run/drover/handlers/customhandler"
	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers/process"
)

// This file runs the programs of apps that are web servers: the custom handlers of Azure Functions.

// Server is the program of one app.
type Server struct {
	*customhandler.Server
	confinement *sandbox.Confinement
	program     interpreters.Interpreter
	code        *interpreters.Code // the state of the app's files when it started
	end         context.CancelFunc
	running     sync.WaitGroup
}

// Close stops the program and waits until it has ended.
func (s *Server) Close() {
	s.end()
	s.running.Wait()
}

// ServerOf returns the web server of an app; nil if it has none.
func (s *Set) ServerOf(app string) *Server { return s.servers[app] }

// serverApps returns the apps of a configuration whose web server drover starts.
func serverApps(cfg *configs.Config) map[string]bool {
	out := make(map[string]bool)
	for _, f := range cfg.Functions {
		if h := f.Handler.HTTP; h != nil && h.App != "" {
			out[h.App] = true
		}
	}
	return out
}

// openServer starts the web server of an app, or reuses the one that runs if nothing has changed. It
// does not wait until the program listens.
func (s *Set) openServer(ctx context.Context, app string) error {
	settings := s.options.Config.Apps[app]
	code := RuntimeOf(settings.Language).readCode(settings.Dir)
	if s.old != nil && s.old.servers[app] != nil {
		old, was := s.old.servers[app], s.old.options.Config.Apps[app]
		changed, _ := code.ChangesSince(old.code, interpreters.NewImports(settings.Dir))
		if reflect.DeepEqual(was, settings) && len(changed) == 0 {
			s.servers[app] = old
			return nil
		}
		if port := settings.Server.Port; port != 0 && was.Server.Port == port {
			return fmt.Errorf("the custom handler has changed, and has the fixed port %d, so the new one cannot run beside the old one: restart drover, or remove customHandler.port from host.json", port)
		}
	}
	own, err := s.startServer(ctx, app, settings)
	if err != nil {
		return err
	}
	own.code = code
	s.servers[app] = own
	return nil
}

func (s *Set) startServer(ctx context.Context, app string, settings configs.App) (*Server, error) {
	o := s.options
	log := o.Log.With("app", app)
	program, err := RuntimeOf(settings.Language).Find(ctx, settings, o.Env)
	if err != nil {
		return nil, err
	}
	own := &Server{program: program}
	var command process.Command
	if own.confinement, command, err = confineWorkers(ctx, settings, o.Config.DataDir, program, o.Environ(), log); err != nil {
		return nil, err
	}
	own.Server, err = customhandler.New(customhandler.Config{
		Starter:   &process.Starter{Command: command, Reaper: s.SharedReaper(), Confine: own.confinement, Log: log},
		Arguments: settings.Server.Arguments, Root: settings.Dir, Port: settings.Server.Port,
		StartTimeout: settings.StartTimeout.D(), StopGrace: settings.KillGrace.D(), Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, own.confinement.Close())
	}
	lifetime, end := context.WithCancel(context.WithoutCancel(ctx))
	own.end = end
	own.running.Go(func() {
		own.Run(lifetime)
		if err := own.confinement.Close(); err != nil {
			log.Warn("some resources of the custom handler were not removed; the next daemon removes them", "error", err)
		}
	})
	return own, nil
}

// urlOf returns the URL of a handler: that of the configuration, with the address of the app's own
// web server.
func (s *Set) urlOf(h *posting.Handler) string {
	own := s.servers[h.App]
	if own == nil {
		return h.URL
	}
	_, path, _ := strings.Cut(strings.TrimPrefix(h.URL, "http://"), "/")
	return "http://" + own.Address() + "/" + path
}
