// Package overlay writes the drover.yaml that drover init --from-azure puts beside a function app: the
// settings for which Azure has none, commented out. Package functionapp calls it.
package overlay

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/servers"
)

// Function is a function of the app.
type Function struct {
	Name, Trigger string
	// NotRun is the reason why the function does not run; "" if it runs.
	NotRun string
}

// appKeys are the keys of the app that most apps need; there are others. serverKeys are the same for an
// app with a custom handler.
var (
	appKeys    = []string{"processes", "threads", "coroutines", "start", "start_timeout", "kill_grace", "on_blocked"}
	serverKeys = []string{"start_timeout", "kill_grace"}
)

// Text returns a drover.yaml for an app: each setting has the value that is in effect. report is text
// for people that it begins with. app is the name of the app in the completed configuration, and keys
// are those that a function may have.
func Text(report string, c *configs.Config, app string, keys []string, functions []Function) []byte {
	var out bytes.Buffer
	line := func(format string, args ...any) {
		out.WriteString(strings.TrimRight(strings.Map(onOneLine, fmt.Sprintf(format, args...)), " ") + "\n")
	}
	line("# Settings for the Azure Functions app in this directory that Azure does not have. All of them are")
	line("# commented out, and show the values in effect. To change one, remove the # before it and before the")
	line("# lines above it that it belongs to, such as functions: and the name of the function. The triggers,")
	line("# outputs and connections are defined by the app, not here. To print all settings, run: drover check")
	line("version: 1")
	line("")
	line("# What drover check reported when this file was written:")
	line("#")
	for _, row := range strings.Split(strings.TrimRight(report, "\n"), "\n") {
		line("#   %s", row)
	}
	line("")
	writeGeneral(line, c)
	writeApp(line, app, c.Apps[app])
	writeFunctions(line, c, keys, functions)
	return out.Bytes()
}

// onOneLine replaces what would end a comment.
func onOneLine(r rune) rune {
	if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
		return ' '
	}
	return r
}

// describedKeys returns the descriptions of the keys of a struct.
func describedKeys(of any) map[string]string {
	out := make(map[string]string)
	kind := reflect.TypeOf(of)
	for i := range kind.NumField() {
		tag := kind.Field(i).Tag
		out[tag.Get("yaml")] = tag.Get("desc")
	}
	return out
}

func writeGeneral(line func(string, ...any), c *configs.Config) {
	keys := describedKeys(configs.Config{})
	for _, one := range []struct {
		key   string
		value any
	}{{"data_dir", ".drover"}, {"drain", c.Drain}, {"log", fmt.Sprintf("{level: %s, format: %s}", c.Log.Level, c.Log.Format)}} {
		line("# %s", keys[one.key])
		line("#%s: %v", one.key, one.value)
	}
	line("")
	for _, f := range c.Functions {
		if f.Trigger.HTTP != nil {
			writeServer(line, &c.HTTP)
			return
		}
	}
}

// writeServer writes the server of HTTP functions, without the keys of requests, which may be secret.
func writeServer(line func(string, ...any), own *servers.HTTP) {
	keys := describedKeys(*own)
	line("# The server of the HTTP functions.")
	line("#http:")
	for _, one := range []struct {
		key   string
		value any
	}{
		{"listen", own.Listen}, {"max_body", own.MaxBody}, {"max_requests", own.MaxRequests}, {"queue_timeout", own.QueueTimeout}, {"body_timeout", own.BodyTimeout},
	} {
		line("#  # %s", keys[one.key])
		line("#  %s: %v", one.key, one.value)
	}
	line("#  # %s", keys["keys"])
	line("#  # keys: {all: \"${HTTP_KEY}\", master: \"${HTTP_MASTER_KEY}\"}")
	line("")
}

func writeApp(line func(string, ...any), name string, app configs.App) {
	keys := describedKeys(configs.App{})
	auto := func(n int, measured bool) string {
		if measured {
			return "auto"
		}
		return fmt.Sprint(n)
	}
	values := map[string]any{
		"processes": auto(app.Processes, app.Scaled), "threads": auto(app.Threads, app.AutoThreads), "coroutines": auto(app.Coroutines, app.AutoCoroutines),
		"start": app.Start, "start_timeout": app.StartTimeout, "kill_grace": app.KillGrace, "on_blocked": app.OnBlocked,
	}
	of, chosen := "# The worker processes that run the functions. limits, recycle, environment and sandbox are keys of it, too.", appKeys
	if app.Server != nil {
		of, chosen = "# The custom handler. limits, user, environment and sandbox are keys of it, too.", serverKeys
	}
	line(of)
	line("#apps:")
	line("#  %s:", name)
	for _, key := range chosen {
		line("#    # %s", keys[key])
		line("#    %s: %v", key, values[key])
	}
	line("")
}

func writeFunctions(line func(string, ...any), c *configs.Config, keys []string, functions []Function) {
	described := describedKeys(configs.Function{})
	line("# Of each function:")
	for _, key := range keys {
		line("#   %s: %s", key, described[key])
	}
	line("#functions:")
	for _, f := range functions {
		if f.NotRun != "" {
			line("#  # %s does not run: %s", f.Name, f.NotRun)
			continue
		}
		line("#  %s: # %s", f.Name, f.Trigger)
		for _, key := range keys {
			line("#    %s: %s", key, functionValue(c.Functions[f.Name], key))
		}
	}
}

// functionValue returns a setting of a function as written in a drover.yaml.
func functionValue(f configs.Function, key string) string {
	if key == "retry" {
		r := f.Retry
		return fmt.Sprintf("{max_attempts: %d, initial: %v, max: %v, jitter: %v}", r.MaxAttempts, r.Initial, r.Max, r.Jitter)
	}
	of := reflect.ValueOf(f)
	for i := range of.NumField() {
		tag := of.Type().Field(i).Tag
		if tag.Get("yaml") != key {
			continue
		}
		if word := tag.Get("zero"); word != "" && of.Field(i).IsZero() {
			return word
		}
		if text := fmt.Sprint(of.Field(i).Interface()); text != "" {
			return text
		}
		return tag.Get("default")
	}
	panic("functions have no key " + key)
}
