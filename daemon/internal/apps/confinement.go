package apps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/trust"
	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers/process"
)

// This file applies the limits and the sandbox of the configuration to worker processes.

// sandboxSettings returns the settings of an app's sandbox.
func sandboxSettings(app configs.App, dataDir string) sandbox.Settings {
	l := app.Limits
	s := sandbox.Settings{
		Dir: app.Dir, DataDir: dataDir, User: app.User, Group: app.Group, NewPrivileges: app.NewPrivileges,
		Limits: sandbox.Limits{
			Memory: int64(l.Memory), CPU: l.CPU, Processes: l.Processes,
			OpenFiles: l.OpenFiles, FileSize: int64(l.FileSize), AddressSpace: int64(l.AddressSpace), CPUTime: l.CPUTime.D(), Core: int64(l.Core),
		},
		Strict: app.Sandbox.Strict(), Read: app.Sandbox.Read, Write: app.Sandbox.Write, Temporary: int64(app.Sandbox.Temporary), Connect: portList(app.Sandbox.Connect), UnixSockets: app.Sandbox.UnixSockets, LinkLocal: app.Sandbox.LinkLocal,
		Environment: sandboxEnvironment(app.Environment),
	}
	return s
}

// portList converts the ports of a configuration; nil allows any.
func portList(ports configs.Ports) []int {
	if ports.Any() {
		return nil
	}
	return ports
}

func sandboxEnvironment(e configs.Environment) sandbox.Environment {
	out := sandbox.Environment{Pass: e.Pass, Withheld: e.Withheld, Set: make(map[string]string)}
	for name, value := range e.Set {
		out.Set[name] = string(value)
	}
	return out
}

// logWithheld logs which variables a process does not get because the configuration
// reads them. Code that needs one of them fails.
func logWithheld(log *slog.Logger, e configs.Environment, strict bool, environ []string) {
	if names := sandboxEnvironment(e).WithheldNames(environ, strict); len(names) > 0 {
		log.Info("variables that the configuration reads are not passed to workers", "variables", names, "to_pass", withheldAdvice(names))
	}
}

func withheldAdvice(names []string) string {
	return "set environment: {pass: [PATH, HOME, " + strings.Join(names, ", ") + "]}, or pass: [\"*\"] for all"
}

// confineWorkers prepares the sandbox of an app's workers and their command, and tries the sandbox
// in a process. The error names what this machine cannot enforce.
func confineWorkers(ctx context.Context, app configs.App, dataDir string, i interpreters.Interpreter, environ []string, log *slog.Logger) (c *sandbox.Confinement, command process.Command, err error) {
	runtime, settings := runtimes[app.Language], sandboxSettings(app, dataDir)
	environ = app.Environment.WithFiles(environ)
	if c, err = sandbox.New(settings); err != nil {
		return nil, command, err
	}
	defer func(made *sandbox.Confinement) {
		if err != nil {
			err = errors.Join(err, made.Close())
		}
	}(c)
	home, err := runtime.Install(c.FilesDir())
	if err != nil {
		return nil, command, err
	}
	if home != "" {
		c.AddNeeded(home)
	}
	if err = allowInterpreter(ctx, c, settings, runtime, &i); err != nil {
		return nil, command, err
	}
	if err = c.TryLaunch(ctx); err != nil {
		return nil, command, err
	}
	logWithheld(log, app.Environment, settings.Strict, environ)
	if how := trust.ChangeableBy(app.Dir); how != "" && settings.User == "" {
		log.Warn("workers run as root with code that another user can change", "path", app.Dir, "why", how, "instead", "set user, or give the directory to root")
	}
	return c, runtime.Command(i, home, app, c.FilterEnviron(environ)), nil
}

// allowInterpreter lets workers read the files of their interpreter, if the sandbox or
// their user would keep them from it. A launcher script would have to read more files,
// so the interpreter itself becomes the command.
func allowInterpreter(ctx context.Context, c *sandbox.Confinement, s sandbox.Settings, runtime Runtime, i *interpreters.Interpreter) error {
	if !s.Strict && s.User == "" {
		return nil
	}
	layout, err := runtime.Layout(ctx, *i)
	if err != nil {
		return err
	}
	c.AddNeeded(layout.Homes...)
	c.AddReadable(layout.Libraries...)
	i.Path = layout.Executable
	return nil
}

// checkConfinement returns what this machine cannot enforce of an app's settings as the
// error, and remarks as notes. It creates no cgroup: a running daemon may use it.
func checkConfinement(ctx context.Context, app configs.App, dataDir string, i interpreters.Interpreter, environ []string) (notes []string, err error) {
	settings := sandboxSettings(app, dataDir)
	environ = app.Environment.WithFiles(environ)
	if err := sandbox.Check(settings); err != nil {
		return nil, err
	}
	settings.Limits.Memory, settings.Limits.CPU, settings.Limits.Processes = 0, 0, 0
	c, err := sandbox.New(settings)
	if err != nil {
		return nil, err
	}
	if err = allowInterpreter(ctx, c, settings, runtimes[app.Language], &i); err == nil {
		err = c.TryLaunch(ctx)
	}
	notes = sandbox.Notes(settings)
	if names := settings.Environment.WithheldNames(environ, settings.Strict); len(names) > 0 {
		notes = append(notes, fmt.Sprintf("its workers do not get %s, which the configuration reads; %s", strings.Join(names, ", "), withheldAdvice(names)))
	}
	if how := trust.ChangeableBy(app.Dir); how != "" && settings.User == "" {
		notes = append(notes, fmt.Sprintf("its workers run as root, and %s %s; set user, or run: chown -R root %s && chmod -R go-w %s", app.Dir, how, app.Dir, app.Dir))
	}
	return notes, errors.Join(err, c.Close())
}
