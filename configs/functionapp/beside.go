package functionapp

import (
	"cmp"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/functionapp/overlay"
	"github.com/drover-run/drover/configs/problems"
)

// This file reads the drover.yaml beside host.json, which sets what Azure has no setting for.

// General returns the completed configuration of the app without its functions, for the run that
// indexes its code: the app has the interpreter, its environment, and its sandbox. text is the drover.yaml
// next to host.json; nil if there is none. The error is a configs.Errors.
func (a *App) General(file string, text []byte) (*configs.Config, error) {
	c := configs.New()
	a.host.setLevel(c)
	c.Apps = map[string]configs.App{AppName: a.workers()}
	f := withDefaults[configs.Function]() // a configuration has at least one; this one does not run
	f.Trigger = anyTrigger()
	if a.host.isCustom() {
		f.Handler.HTTP = customHandler(a, &Function{Name: "index", Bindings: []Binding{{Type: "trigger", Name: "any"}}})
	} else {
		f.Handler.Python = &configs.PythonHandler{App: AppName, Azure: new(configs.AzureFunction)}
	}
	c.Functions = map[string]configs.Function{"index": f}
	skip := func(path string) bool { return path == "functions" || path == "http" }
	if err := c.CompleteOver(file, text, a.Dir, a.Settings.Env, skip, refuse); err != nil {
		return nil, err
	}
	a.shared = c.Scale.Instances.External
	return c, nil
}

// Complete completes the configuration, if it has functions. text is the drover.yaml next to host.json;
// nil if there is none. The error is a configs.Errors.
func (t *Translation) Complete(file string, text []byte) error {
	if len(t.Config.Functions) == 0 {
		return nil
	}
	if text == nil {
		file = t.app.Name
	}
	err := t.Config.CompleteOver(file, text, t.app.Dir, t.app.Settings.Env, nil, func(path string) string {
		if parts := strings.Split(path, "."); parts[0] == "functions" && len(parts) == 2 {
			return t.refuseFunction(parts[1])
		}
		return refuse(path)
	})
	if err != nil {
		return err
	}
	t.Config.File = t.app.Name
	return saveSnapshot(t, file, text)
}

// allowed are the keys of a function that the file may set.
var allowed = []string{"concurrency", "prefetch", "timeout", "max_body", "retry", "log_level"}

// refuse returns why the file must not set the key at a path; "" if it may.
func refuse(path string) string {
	parts := strings.Split(path, ".")
	switch {
	case parts[0] == "env_file":
		return "a function app has its variables in its settings; remove it, and set them in " + settingsFile + " or in the environment"
	case parts[0] == "connections":
		return "connections come from the app's settings; remove it, and set them in " + settingsFile + " or in the environment"
	case parts[0] == "apps" && len(parts) == 2 && parts[1] != AppName:
		return "a function app is one app, with the name " + AppName + "; write apps." + AppName
	case parts[0] == "apps" && len(parts) == 3 && (parts[2] == "path" || parts[2] == "command"):
		return "the function app defines the code; remove it"
	case parts[0] == "functions" && len(parts) == 3 && slices.Contains([]string{"trigger", "handler", "output", "batch"}, parts[2]):
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

// WriteBeside returns a drover.yaml for the app, in which all that it may set is commented out. report
// is text for people that it begins with, such as that of Describe. The configuration must be completed.
func WriteBeside(t *Translation, report string) []byte {
	var functions []overlay.Function
	for _, f := range t.Functions {
		why := cmp.Or(f.Disabled, f.Unsupported)
		if _, runs := t.Config.Functions[f.Name]; !runs && why == "" {
			why = "it has an error, which drover check reports"
		}
		functions = append(functions, overlay.Function{Name: f.Name, Trigger: f.trigger, NotRun: why})
	}
	return overlay.Text(report, t.Config, AppName, allowed, functions)
}
