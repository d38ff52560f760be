package sandbox

import (
	"slices"
	"strings"
)

// Environment is what of the daemon's environment workers get.
type Environment struct {
	// Pass are names of variables; one that ends in * is a beginning of names. nil is
	// all that are not withheld, or with the strict sandbox those in StrictPass.
	Pass []string
	// Withheld are names of variables that are passed only where Pass names them, or
	// StrictPass: those that the configuration reads, which are secrets mostly.
	Withheld []string
	// Set are variables in addition to those, or in their place.
	Set map[string]string
}

// StrictPass is what workers in the strict sandbox get by default: where programs
// and certificates are, and how people write.
var StrictPass = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TZDIR", "TERM",
	"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONHASHSEED", "NODE_ENV", "NODE_PATH",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
}

// never is what no worker gets, but by Set: drover's own.
var never = []string{"DROVER_*", "NOTIFY_SOCKET", "WATCHDOG_*", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}

// account is whom workers run as, where that is another user.
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
		if slices.Contains(withheld, name) && !matches(StrictPass, name) {
			continue
		}
		if _, own := e.Set[name]; !own && !matches(never, name) && (pass == nil || matches(pass, name)) {
			out = append(out, variable)
		}
	}
	if who.name != "" {
		for name, value := range map[string]string{"USER": who.name, "LOGNAME": who.name, "HOME": who.home} {
			out = slices.DeleteFunc(out, named(name))
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

// Withholds returns the names of variables of an environment that its processes would
// get if the configuration did not read them.
func (e Environment) Withholds(given []string, strict bool) (out []string) {
	if e.Pass != nil || strict {
		return nil
	}
	for _, variable := range given {
		name, _, _ := strings.Cut(variable, "=")
		if _, own := e.Set[name]; !own && slices.Contains(e.Withheld, name) && !matches(StrictPass, name) && !matches(never, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if beginning, found := strings.CutSuffix(p, "*"); found {
			return strings.HasPrefix(name, beginning)
		}
		return p == name
	})
}

// named reports whether a NAME=VALUE has the name.
func named(name string) func(string) bool {
	return func(variable string) bool { return strings.HasPrefix(variable, name+"=") }
}
