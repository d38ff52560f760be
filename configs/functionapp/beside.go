package functionapp

import (
	"slices"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/problems"
)

// This file reads the drover.yaml beside host.json, which sets what Azure has no setting for.

// Worker returns the completed settings of the app's workers, for the run that indexes its code:
// which interpreter, its environment, and its sandbox. text is that of a drover.yaml beside
// host.json; nil if there is none. The error is a configs.Errors.
func (a *App) Worker(file string, text []byte) (configs.App, error) {
	c := configs.New()
	c.Apps = map[string]configs.App{AppName: a.workers()}
	f := withDefaults[configs.Function]() // a configuration has at least one; this one does not run
	f.Trigger = anyTrigger()
	f.Handler.Python = &configs.PythonHandler{App: AppName, Azure: new(configs.AzureFunction)}
	c.Functions = map[string]configs.Function{"index": f}
	skip := func(path string) bool { return path == "functions" }
	err := c.CompleteOver(file, text, a.Dir, a.Settings.Env, skip, refuse)
	return c.Apps[AppName], err
}

// Complete completes the configuration, if it has functions. text is that of a drover.yaml beside
// host.json; nil if there is none. The error is a configs.Errors.
func (t *Translation) Complete(file string, text []byte) error {
	if len(t.Config.Functions) == 0 {
		return nil
	}
	if text == nil {
		file = t.app.Name
	}
	return t.Config.CompleteOver(file, text, t.app.Dir, t.app.Settings.Env, nil, func(path string) string {
		if parts := strings.Split(path, "."); parts[0] == "functions" && len(parts) == 2 {
			return t.refuseFunction(parts[1])
		}
		return refuse(path)
	})
}

// allowed are the keys of a function that the file may set.
var allowed = []string{"concurrency", "prefetch", "timeout", "max_body", "retry"}

// refuse returns why the file must not set the key at a path; "" if it may.
func refuse(path string) string {
	parts := strings.Split(path, ".")
	switch {
	case parts[0] == "connections":
		return "connections come from the app's settings; remove it, and set them in " + settingsFile + " or in the environment"
	case parts[0] == "apps" && len(parts) == 2 && parts[1] != AppName:
		return "a function app is one app, with the name " + AppName + "; write apps." + AppName
	case parts[0] == "apps" && len(parts) == 3 && (parts[2] == "path" || parts[2] == "command"):
		return "the code is that of the function app; remove it"
	case parts[0] == "functions" && len(parts) == 3 && slices.Contains([]string{"trigger", "handler", "output"}, parts[2]):
		return "the function app defines it; remove it. Here a function has " + strings.Join(allowed, ", ")
	}
	return ""
}

// refuseFunction returns why the file must not have settings of a function; "" if it may.
func (t *Translation) refuseFunction(name string) string {
	if _, runs := t.Config.Functions[name]; runs {
		return ""
	}
	var names []string
	for _, f := range t.Functions {
		if f.Name == name && f.Disabled+f.Unsupported != "" {
			return "this function does not run: " + f.Disabled + f.Unsupported
		}
		names = append(names, f.Name)
	}
	if slices.Contains(names, name) || slices.ContainsFunc(t.index.Problems, func(w Wrong) bool { return w.Function == name }) {
		return "this function has an error; correct that first"
	}
	return "the app has no such function" + problems.Hint(name, names)
}
