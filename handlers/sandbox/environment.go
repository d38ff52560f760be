package sandbox

import (
	"slices"
	"strings"
)

// Environment selects the part of the daemon's environment that workers get.
type Environment struct {
	// Pass are names of variables; a trailing * matches any suffix. nil passes all that are not
	// withheld, or with the strict sandbox those in StrictPass.
	Pass []string
	// Withheld are names of variables that are passed only if Pass or StrictPass names them: those
	// that the configuration reads, which are mostly secrets.
	Withheld []string
	// Set are variables that are added, or replace passed ones.
	Set map[string]string
}

// StrictPass are the variables passed to workers in the strict sandbox by default: the locations of
// programs and certificates, and the locale.
var StrictPass = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TZDIR", "TERM",
	"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONHASHSEED", "NODE_ENV", "NODE_PATH",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
}

// neverPassed are the variables of drover, which workers get only through Set.
var neverPassed = []string{"DROVER_*", "NOTIFY_SOCKET", "WATCHDOG_*", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}

// account is the account of the workers, if it is not the daemon's.
type account struct{ name, home string }

func (e Environment) selectFrom(given []string, strict bool, who account) []string {
	pass, withheld := e.Pass, []string(nil)
	if pass == nil && strict {
		pass = StrictPass
	} else if pass == nil {
		withheld = e.Withheld
	}
	var out []string
	for _, variable := range given {
		name, _, _ := strings.Cut(variable, "=")
		if slices.Contains(withheld, name) && !matchesAny(StrictPass, name) {
			continue
		}
		if _, own := e.Set[name]; !own && !matchesAny(neverPassed, name) && (pass == nil || matchesAny(pass, name)) {
			out = append(out, variable)
		}
	}
	if who.name != "" {
		for name, value := range map[string]string{"USER": who.name, "LOGNAME": who.name, "HOME": who.home} {
			out = slices.DeleteFunc(out, hasName(name))
			if _, own := e.Set[name]; !own {
				out = append(out, name+"="+value)
			}
		}
	}
	for name, value := range e.Set {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

// WithheldNames returns the names of variables in an environment that are withheld only because the
// configuration reads them.
func (e Environment) WithheldNames(given []string, strict bool) (out []string) {
	if e.Pass != nil || strict {
		return nil
	}
	for _, variable := range given {
		name, _, _ := strings.Cut(variable, "=")
		if _, own := e.Set[name]; !own && slices.Contains(e.Withheld, name) && !matchesAny(StrictPass, name) && !matchesAny(neverPassed, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if beginning, found := strings.CutSuffix(p, "*"); found {
			return strings.HasPrefix(name, beginning)
		}
		return p == name
	})
}

// hasName returns a function that reports whether a NAME=VALUE has the name.
func hasName(name string) func(string) bool {
	return func(variable string) bool { return strings.HasPrefix(variable, name+"=") }
}
