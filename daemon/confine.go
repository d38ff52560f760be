package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers/process"
)

// This file holds worker processes to what the configuration says.

// confineSettings are an app's.
func confineSettings(app configs.App, dataDir string) sandbox.Settings {
	l := app.Limits
	s := sandbox.Settings{
		Dir: app.Dir, DataDir: dataDir, User: app.User, Group: app.Group, NewPrivileges: app.NewPrivileges,
		Limits: sandbox.Limits{
			Memory: int64(l.Memory), CPU: l.CPU, Processes: l.Processes,
			OpenFiles: l.OpenFiles, FileSize: int64(l.FileSize), AddressSpace: int64(l.AddressSpace), CPUTime: l.CPUTime.D(), Core: int64(l.Core),
		},
		Strict: app.Sandbox.Strict(), Read: app.Sandbox.Read, Write: app.Sandbox.Write, Temporary: int64(app.Sandbox.Temporary), Connect: connectable(app.Sandbox.Connect), UnixSockets: app.Sandbox.UnixSockets, LinkLocal: app.Sandbox.LinkLocal,
		Environment: environmentOf(app.Environment),
	}
	return s
}

// connectable are ports as a confinement has them, where nil is any.
func connectable(ports configs.Ports) []int {
	if ports.Any() {
		return nil
	}
	return ports
}

func environmentOf(e configs.Environment) sandbox.Environment {
	out := sandbox.Environment{Pass: e.Pass, Withheld: e.Withheld, Set: make(map[string]string)}
	for name, value := range e.Set {
		out.Set[name] = string(value)
	}
	return out
}

// noteWithheld logs which variables a process does not get, since the configuration
// reads them: code that needs one fails.
func noteWithheld(log *slog.Logger, e configs.Environment, strict bool, environ []string) {
	if names := environmentOf(e).Withholds(environ, strict); len(names) > 0 {
		log.Info("variables that the configuration reads are not passed to workers", "variables", names, "to_pass", withheldAdvice(names))
	}
}

func withheldAdvice(names []string) string {
	return "set environment: {pass: [PATH, HOME, " + strings.Join(names, ", ") + "]}, or pass: [\"*\"] for all"
}

// confineApp prepares what an app's workers are held to, and their command, and has a
// process take all of it upon itself. The error says what this machine can't do.
func confineApp(ctx context.Context, app configs.App, dataDir string, i interpreters.Interpreter, environ []string, log *slog.Logger) (c *sandbox.Confinement, command process.Command, err error) {
	of, settings := languages[app.Language], confineSettings(app, dataDir)
	if c, err = sandbox.New(settings); err != nil {
		return nil, command, err
	}
	defer func(made *sandbox.Confinement) {
		if err != nil {
			err = errors.Join(err, made.Close())
		}
	}(c)
	home, err := of.install(c.FilesDir())
	if err != nil {
		return nil, command, err
	}
	if home != "" {
		c.Need(home)
	}
	if err = allowInterpreter(ctx, c, settings, of, &i); err != nil {
		return nil, command, err
	}
	if err = c.Try(ctx); err != nil {
		return nil, command, err
	}
	noteWithheld(log, app.Environment, settings.Strict, environ)
	if how := configs.ChangeableBy(app.Dir); how != "" && settings.User == "" {
		log.Warn("workers run as root with code that another user can change", "path", app.Dir, "why", how, "instead", "set user, or give the directory to root")
	}
	return c, of.command(i, home, app, c.Environ(environ)), nil
}

// allowInterpreter lets workers read what their interpreter is made of, where that is
// not theirs to read in any case. A script that looks for the interpreter reads more,
// so the interpreter itself is run then.
func allowInterpreter(ctx context.Context, c *sandbox.Confinement, s sandbox.Settings, of language, i *interpreters.Interpreter) error {
	if !s.Strict && s.User == "" {
		return nil
	}
	layout, err := of.layout(ctx, *i)
	if err != nil {
		return err
	}
	c.Need(layout.Homes...)
	c.Read(layout.Libraries...)
	i.Path = layout.Executable
	return nil
}

// checkConfinement says what of an app's settings this machine can't do. What takes a
// cgroup is looked for, and not made: a daemon may run here that has made it.
func checkConfinement(ctx context.Context, app configs.App, dataDir string, i interpreters.Interpreter, environ []string) (notes []string, err error) {
	settings := confineSettings(app, dataDir)
	if err := sandbox.Check(settings); err != nil {
		return nil, err
	}
	settings.Limits.Memory, settings.Limits.CPU, settings.Limits.Processes = 0, 0, 0
	c, err := sandbox.New(settings)
	if err != nil {
		return nil, err
	}
	if err = allowInterpreter(ctx, c, settings, languages[app.Language], &i); err == nil {
		err = c.Try(ctx)
	}
	notes = sandbox.Notes(settings)
	if names := settings.Environment.Withholds(environ, settings.Strict); len(names) > 0 {
		notes = append(notes, fmt.Sprintf("its workers do not get %s, which the configuration reads; %s", strings.Join(names, ", "), withheldAdvice(names)))
	}
	if how := configs.ChangeableBy(app.Dir); how != "" && settings.User == "" {
		notes = append(notes, fmt.Sprintf("its workers run as root, and %s %s; set user, or run: chown -R root %s && chmod -R go-w %s", app.Dir, how, app.Dir, app.Dir))
	}
	return notes, errors.Join(err, c.Close())
}
