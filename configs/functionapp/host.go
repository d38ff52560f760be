package functionapp

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/functionapp/custom"
	"github.com/drover-run/drover/configs/functionapp/hostkeys"
)

// hostFile is what makes a directory a function app.
const hostFile = "host.json"

// overridePrefix begins the names of settings that override host.json.
const overridePrefix = "AzureFunctionsJobHost"

// host is the configuration of the host: host.json, and the settings that override it.
type host struct {
	settings []setting // in the order of their names
}

// lookup returns a value by its path with dots.
func (h host) lookup(dotted string) (s setting, found bool) {
	for _, s := range h.settings {
		if strings.EqualFold(s.name, strings.ReplaceAll(dotted, ".", ":")) {
			return s, true
		}
	}
	return setting{}, false
}

// readHost reads host.json and the overrides, and returns their problems. warnings name keys that
// have no meaning.
func readHost(dir string, s Settings, environ []string) (h host, warnings []string, errs configs.Errors) {
	d, _ := readDocument(dir, hostFile)
	byName := make(map[string]setting)
	add := func(one setting) { byName[strings.ToLower(one.name)] = one }
	d.flatten(d.root, "", add)
	if len(members(d.root)) > 0 && len(d.Problems) == 0 {
		if _, found := byName["version"]; !found {
			d.Report(d.at(d.root), "it has no version; add: \"version\": \"2.0\"")
		}
	}
	override := func(name, value, from string) {
		rest, found := strings.CutPrefix(strings.ReplaceAll(name, "__", ":"), overridePrefix+":")
		if found && rest != "" {
			add(setting{name: rest, text: value, from: from + ", " + name})
		}
	}
	for _, name := range s.names() {
		override(name, s.values[name], settingsFile)
	}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		override(name, value, fromEnvironment)
	}
	for _, one := range byName {
		h.settings = append(h.settings, one)
	}
	slices.SortFunc(h.settings, func(a, b setting) int { return strings.Compare(a.name, b.name) })
	for _, one := range h.settings {
		key, found := hostkeys.FindKey(one.name)
		if !found {
			warnings = append(warnings, one.from+": "+hostkeys.DescribeUnknown(one.name))
		}
		if err := key.CheckValue(one.text); err != nil && one.at.Line > 0 {
			d.Report(one.at, "%s: %v", one.dotted(), err)
		} else if err != nil {
			errs = append(errs, configs.Problem{File: one.from, Message: err.Error()})
		}
	}
	return h, warnings, append(errorsOf(d), errs...)
}

// number returns a whole number; readHost has checked it.
func (h host) number(dotted string, def int) (n int, given bool) {
	s, found := h.lookup(dotted)
	if !found {
		return def, false
	}
	n, _ = strconv.Atoi(s.text)
	return n, true
}

// span returns a time span; readHost has checked it.
func (h host) span(dotted string, def time.Duration) time.Duration {
	if s, found := h.lookup(dotted); found {
		d, _ := hostkeys.ParseSpan(s.text)
		return d
	}
	return def
}

// dynamic reports whether Azure would find the numbers of calls itself.
func (h host) dynamic() bool {
	s, _ := h.lookup("concurrency.dynamicConcurrencyEnabled")
	return strings.EqualFold(s.text, "true")
}

// queueConcurrency returns how many messages of a queue are in flight at most; 0 if host.json does
// not say.
func (h host) queueConcurrency() int {
	size, sized := h.number("extensions.queues.batchSize", 16)
	threshold, given := h.number("extensions.queues.newBatchThreshold", size/2*runtime.GOMAXPROCS(0))
	if h.dynamic() || !sized && !given {
		return 0
	}
	return size + threshold
}

// timeout returns the timeout of functions.
func (h host) timeout() time.Duration {
	const longest, usual = 24 * time.Hour, 30 * time.Minute
	s, found := h.lookup("functionTimeout")
	if found && s.text == "-1" {
		return longest
	}
	return min(h.span("functionTimeout", usual), longest)
}

// level returns the level of the log; "" if host.json does not set it.
func (h host) level() string {
	s, found := h.lookup("logging.logLevel.default")
	if !found {
		return ""
	}
	return levelOf(s.text)
}

// functionLevel returns the level of the log of a function; auto if host.json does not set it.
func (h host) functionLevel(name string) string {
	for _, category := range []string{"Function." + name + ".User", "Function." + name, "Function"} {
		for _, s := range h.settings {
			if strings.EqualFold(s.name, "logging:logLevel:"+category) {
				return levelOf(s.text)
			}
		}
	}
	return "auto"
}

// levelOf returns drover's name of a level.
func levelOf(text string) string {
	switch strings.ToLower(text) {
	case "trace", "debug":
		return "debug"
	case "information":
		return "info"
	case "warning":
		return "warn"
	}
	return "error"
}

// only returns the functions that run, if host.json lists them; nil: all.
func (h host) only() (names []string) {
	for _, s := range h.settings {
		if rest, found := strings.CutPrefix(strings.ToLower(s.name), "functions:"); found && rest != "" {
			names = append(names, s.text)
		}
	}
	return names
}

// isCustom reports whether the functions are in a custom handler.
func (h host) isCustom() bool {
	return slices.ContainsFunc(h.settings, func(s setting) bool {
		return strings.HasPrefix(strings.ToLower(s.name), strings.ToLower(custom.Section)+":")
	})
}

// checkCustom returns the problem of a custom handler without a program.
func checkCustom(h host) configs.Errors {
	if s, found := h.lookup(custom.Program); found && s.text != "" {
		return nil
	}
	return configs.Errors{{File: hostFile, Message: fmt.Sprintf("%s has no description.defaultExecutablePath, the program of the custom handler; write \"%s\": {\"description\": {\"defaultExecutablePath\": \"handler\"}}", custom.Section, custom.Section)}}
}

// setLevel sets the level of the log.
func (h host) setLevel(c *configs.Config) {
	if level := h.level(); level != "" {
		c.Log.Level = level
	}
}
