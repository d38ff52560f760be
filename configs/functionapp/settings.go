package functionapp

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/functionapp/httphost"
)

// settingsFile has the settings of an app on a developer's machine.
const settingsFile = "local.settings.json"

// Settings are the app settings: the environment, and beneath it the Values of local.settings.json.
type Settings struct {
	env    configs.Env
	values map[string]string
}

// Where a setting is from.
const fromEnvironment = "environment"

// Lookup returns a setting, and where it is from. The environment wins. A name in
// local.settings.json matches in any case.
func (s Settings) Lookup(name string) (value, from string, found bool) {
	if value, found = s.env(name); found {
		return value, fromEnvironment, true
	}
	if strings.Contains(name, ":") { // which a variable cannot have
		if value, found = s.env(strings.ReplaceAll(name, ":", "__")); found {
			return value, fromEnvironment, true
		}
	}
	if value, found = s.values[name]; found {
		return value, settingsFile, true
	}
	for _, known := range slices.Sorted(maps.Keys(s.values)) {
		if strings.EqualFold(known, name) || strings.EqualFold(strings.ReplaceAll(known, "__", ":"), name) {
			return s.values[known], settingsFile, true
		}
	}
	return "", "", false
}

// Env looks up a setting as an environment variable.
func (s Settings) Env(name string) (value string, found bool) {
	if value, found = s.env(name); found {
		return value, true
	}
	value, found = s.values[name]
	return value, found
}

// variableForm matches the names that an environment variable of a worker can have.
var variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// variables returns the settings that workers need beside the daemon's environment. A name such as
// AzureWebJobs.NAME.Disabled is for the host alone.
func (s Settings) variables() map[string]configs.Secret {
	out := make(map[string]configs.Secret)
	for name, value := range s.values {
		if _, given := s.env(name); !given && variableForm.MatchString(name) && !strings.Contains(value, "\x00") {
			out[name] = configs.Secret(value)
		}
	}
	return out
}

// names returns the names of the settings in local.settings.json.
func (s Settings) names() []string { return slices.Sorted(maps.Keys(s.values)) }

// readSettings reads local.settings.json, which may be missing, and returns its problems.
func readSettings(dir string, env configs.Env) (Settings, configs.Errors) {
	s := Settings{env: env, values: make(map[string]string)}
	d, _ := readDocument(dir, settingsFile)
	if len(d.Problems) > 0 {
		d.Lines = nil // an excerpt could show a secret
		return s, errorsOf(d)
	}
	if encrypted, found := child(d.root, "IsEncrypted"); found {
		if text, _ := scalar(encrypted); strings.EqualFold(text, "true") {
			d.Report(d.at(encrypted), "its Values are encrypted, with a key that only Core Tools has; run this in %s: func settings decrypt", dir)
			return s, errorsOf(d)
		}
	}
	if host, found := child(d.root, "Host"); found {
		if port, given := child(host, "LocalHttpPort"); given {
			text, _ := scalar(port)
			if err := httphost.CheckPort(text); err != nil {
				d.Report(d.at(port), "Host.LocalHttpPort: %v", err)
			}
			s.values[httphost.Port] = text
		}
	}
	if values, found := child(d.root, "Values"); found {
		if _, isObject := values.Value.(*hujson.Object); !isObject {
			d.Report(d.at(values), "Values must be an object: { \"NAME\": \"value\" }")
		}
		for _, m := range members(values) {
			text, ok := scalar(m.value)
			if literal, isLiteral := m.value.Value.(hujson.Literal); !ok && isLiteral && literal.Kind() == 'n' {
				continue // null is not a value
			}
			if !ok {
				d.Report(d.at(m.value), "Values.%s must be a string; write JSON in quotes", m.name)
			}
			d.Secrets = append(d.Secrets, text)
			s.values[m.name] = text
		}
	}
	return s, errorsOf(d)
}

// SettingsOf returns the settings of the app in a directory, as environment variables. Without a
// readable local.settings.json they are the environment.
func SettingsOf(dir string, env configs.Env) configs.Env {
	s, _ := readSettings(dir, env) // commands that run the app report the error
	return s.Env
}

func errorsOf(d *document) configs.Errors {
	d.Secrets = slices.DeleteFunc(d.Secrets, func(secret string) bool { return len(secret) < 4 }) // true and 1 are not secrets
	_ = d.Err()                                                                                   // it adds the lines to the problems
	return d.Problems
}

// reference matches a setting in a text.
var reference = regexp.MustCompile(`%([^%]+)%`)

// expand replaces each %NAME% by the setting; one that is not set is left out.
func (s Settings) expand(text string) string {
	return reference.ReplaceAllStringFunc(text, func(whole string) string {
		value, _, _ := s.Lookup(strings.Trim(whole, "%"))
		return value
	})
}
