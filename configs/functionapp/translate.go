package functionapp

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
)

// Translation is what drover makes of a function app.
type Translation struct {
	// Config has the functions that drover runs. It is not completed.
	Config *configs.Config
	// Functions are all functions of the app, in the order of their names.
	Functions []Function
	// Warnings name what drover does not run, and what may be a mistake.
	Warnings []string
	// Errors are the problems of functions; the others run.
	Errors configs.Errors

	app         *App
	index       Index
	connections map[string]found
}

// Function is a function of the app.
type Function struct {
	Name, Module, Entry, File string
	Line                      int
	Bindings                  []Binding
	HTTPType                  string
	// Disabled and Unsupported have the reason why it does not run; "" otherwise.
	Disabled, Unsupported string

	trigger string  // for people
	at      Binding // where Unsupported is from
	outputs []string
	retry   json.RawMessage
}

// Trigger returns the binding that runs the function.
func (f Function) Trigger() Binding {
	for _, b := range f.Bindings {
		if b.trigger() {
			return b
		}
	}
	return Binding{}
}

// kind is a type of binding that drover knows.
type kind struct {
	name string
	out  bool
	// translate sets the settings of a function that the trigger runs; nil for an output.
	translate func(t *Translation, f *Function, b Binding, to *configs.Function)
	// describe checks an output, and describes it; nil for a trigger.
	describe func(t *Translation, f *Function, b Binding) string
}

// kindOf returns the kind of a binding.
func kindOf(b Binding) (kind, bool) {
	for _, k := range kinds {
		if strings.EqualFold(k.name, b.Type) && k.out == b.Out {
			return k, true
		}
	}
	return kind{}, false
}

// kinds are the types of bindings that drover knows.
var kinds = slices.Concat(queueKinds, busKinds, []kind{
	{name: "httpTrigger", translate: (*Translation).httpTrigger},
	{name: "http", out: true, describe: func(*Translation, *Function, Binding) string { return "the response" }},
	{name: "timerTrigger", translate: (*Translation).timerTrigger},
})

// Translate makes a configuration of an app and its index.
func (a *App) Translate(index Index) *Translation {
	t := &Translation{Config: configs.New(), app: a, index: index, connections: make(map[string]found)}
	t.Config.Functions = make(map[string]configs.Function)
	t.Warnings = append(t.Warnings, a.warnings...)
	t.Warnings = append(t.Warnings, index.Warnings...)
	for _, name := range index.Shadowed {
		t.Warnings = append(t.Warnings, fmt.Sprintf("%s has the name of a module of Python's standard library: on Azure it may replace that for all packages; drover keeps the two apart. Rename it", name))
	}
	t.Errors = append(t.Errors, a.errs...)
	for _, wrong := range index.Problems {
		t.Errors = append(t.Errors, a.problem(wrong))
	}
	t.addFunctions()
	for i := range t.Functions {
		t.translate(&t.Functions[i])
	}
	t.warnUnsupported()
	t.general()
	if len(t.Functions) == 0 && len(t.Errors) == 0 {
		t.Errors = append(t.Errors, configs.Problem{File: a.Script, Message: "0 functions: the app has none; decorate a function, as in @app.queue_trigger(...), or register a blueprint with app.register_functions(...)"})
	}
	t.Errors = a.placed(t.Errors)
	return t
}

// problem returns a problem of the index with its line and its traceback.
func (a *App) problem(w Wrong) configs.Problem {
	message := w.Message
	if w.Function != "" {
		message = "function " + w.Function + ": " + message
	}
	p := a.problemAt(w.File, w.Line, "%s", message)
	if w.Detail != "" {
		p.Excerpt += "\n" + strings.TrimRight(w.Detail, "\n")
	}
	return p
}

// functionName matches the names that Azure allows.
var functionName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,127}$`)

// addFunctions adds the functions of the index, and those that are disabled.
func (t *Translation) addFunctions() {
	described := make(map[string]Described)
	for _, one := range t.app.described {
		described[one.Name] = one
	}
	for _, one := range t.index.Functions {
		f := Function{Name: one.Name, Module: one.Module, Entry: one.Entry, File: one.File, Line: one.Line, HTTPType: one.HTTPType, retry: one.Retry}
		of, isDescribed := described[one.Name]
		if isDescribed {
			f.retry = of.retry
		}
		t.add(f, of, one.Bindings, one.Lines)
		delete(described, one.Name)
	}
	for _, one := range described {
		if t.app.disabled(one.Name, one.disabled) != "" {
			t.add(Function{Name: one.Name, Module: one.Script, Entry: one.Entry, File: one.Script}, one, one.Bindings, nil)
		}
	}
	slices.SortFunc(t.Functions, func(a, b Function) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(t.Functions); i++ {
		if a, b := t.Functions[i-1], t.Functions[i]; strings.EqualFold(a.Name, b.Name) {
			t.wrong(b, b.Line, "its name differs from that of %s by case only (%s:%d); Azure takes them for the same", a.Name, a.File, a.Line)
		}
	}
}

func (t *Translation) add(f Function, of Described, bindings []json.RawMessage, lines map[string]int) {
	f.Disabled = t.app.disabled(f.Name, of.disabled)
	if !functionName.MatchString(f.Name) {
		t.wrong(f, f.Line, "its name is not allowed: letters, digits, _ and -, at most 128, with a letter first")
		return
	}
	for i, raw := range bindings {
		b, err := newBinding(raw, f.File, f.Line)
		if err != nil {
			t.wrong(f, f.Line, "a binding cannot be read: %v", err)
			return
		}
		if line := lines[b.Name]; line > 0 {
			b.Line = line
		}
		if i < len(of.lines) {
			b.File, b.Line = of.Name+"/"+functionFile, of.lines[i]
		}
		f.Bindings = append(f.Bindings, b)
	}
	t.Functions = append(t.Functions, f)
}

// wrong adds a problem of a function.
func (t *Translation) wrong(f Function, line int, format string, args ...any) {
	t.Errors = append(t.Errors, t.app.problemAt(f.File, line, "function "+f.Name+": "+format, args...))
}

// wrongBinding adds a problem of a binding.
func (t *Translation) wrongBinding(f Function, b Binding, format string, args ...any) {
	t.Errors = append(t.Errors, t.app.problemAt(b.File, b.Line, "function "+f.Name+": "+format, args...))
}

// translate adds one function to the configuration, unless it is disabled, unsupported or wrong.
func (t *Translation) translate(f *Function) {
	before := len(t.Errors)
	f.trigger = f.Trigger().Type
	for _, b := range f.Bindings {
		if _, known := kindOf(b); !known {
			f.leave(b, fmt.Sprintf("drover has no binding %s (%s): %s", b.Type, b.Name, b.instead()))
		}
	}
	if f.Unsupported == "" {
		settings := t.settings(f)
		if f.Disabled == "" && f.Unsupported == "" && len(t.Errors) == before {
			t.Config.Functions[f.Name] = settings
		}
	}
	if f.Disabled != "" {
		t.Errors = t.Errors[:before] // it does not run anyway
	}
}

// leave sets the reason why a function does not run.
func (f *Function) leave(b Binding, why string) {
	if f.Unsupported == "" {
		f.Unsupported, f.at = why, b
	}
}

// warnUnsupported adds a warning for each reason why functions do not run.
func (t *Translation) warnUnsupported() {
	functions, places := make(map[string][]string), make(map[string]string)
	for _, f := range t.Functions {
		if f.Unsupported != "" && f.Disabled == "" {
			functions[f.Unsupported] = append(functions[f.Unsupported], f.Name)
			places[f.Unsupported] = place(f.at)
		}
	}
	for _, why := range slices.Sorted(maps.Keys(functions)) {
		names := functions[why]
		if len(names) > 1 {
			t.Warnings = append(t.Warnings, fmt.Sprintf("%d functions do not run, %s: %s", len(names), strings.Join(names, ", "), why))
			continue
		}
		t.Warnings = append(t.Warnings, fmt.Sprintf("%s: function %s does not run: %s", filepath.Join(t.app.Name, places[why]), names[0], why))
	}
}

func place(b Binding) string {
	if b.Line == 0 {
		return b.File
	}
	return fmt.Sprintf("%s:%d", b.File, b.Line)
}

// settings returns the settings of a function in the configuration.
func (t *Translation) settings(f *Function) configs.Function {
	out := withDefaults[configs.Function]()
	trigger := f.Trigger()
	out.Timeout = configs.Duration(t.app.host.timeout())
	if k, known := kindOf(trigger); known {
		k.translate(t, f, trigger, &out)
	}
	t.checkOutputs(f)
	if policy, given := t.retry(*f); given {
		out.Retry = policy
	}
	out.Handler.Python = &configs.PythonHandler{App: AppName, Module: f.Module, Function: f.Name, Azure: f.azure()}
	return out
}

// httpTrigger describes an HTTP trigger: methods, route and level.
func (t *Translation) httpTrigger(f *Function, b Binding, _ *configs.Function) {
	f.leave(b, "drover does not serve HTTP triggers: serve HTTP with an app of your own, which sends to a queue")
	prefix := "api"
	if s, found := t.app.host.lookup("extensions.http.routePrefix"); found {
		prefix = s.text
	}
	route := f.Name
	if b.text("route") != "" {
		route = t.name(*f, b, "route")
	}
	path := "/" + strings.Trim(prefix, "/") + "/" + strings.TrimLeft(route, "/")
	methods := "any method"
	if words := b.words("methods"); len(words) > 0 {
		methods = strings.ToUpper(strings.Join(words, ", "))
	}
	level := strings.ToLower(b.text("authLevel"))
	if level == "" {
		level = "function"
	}
	text := fmt.Sprintf("%s %s, level %s", methods, strings.ReplaceAll(path, "//", "/"), level)
	switch f.HTTPType {
	case "asgi":
		text += ", an ASGI app"
	case "wsgi":
		text += ", a WSGI app"
	}
	f.trigger = text
}

// timerTrigger translates a timer. A run that fails is not repeated, as on Azure, unless the function
// has a retry.
func (t *Translation) timerTrigger(f *Function, b Binding, to *configs.Function) {
	own := withDefaults[configs.TimerTrigger]()
	own.Schedule, own.RunOnStartup = t.name(*f, b, "schedule"), b.holds("runOnStartup")
	for _, setting := range []string{"TZ", "WEBSITE_TIME_ZONE"} {
		if zone, _, found := t.app.Settings.Lookup(setting); found && zone != "" {
			own.Timezone = zone
		}
	}
	if monitor := b.text("useMonitor"); monitor != "" {
		monitored := b.holds("useMonitor")
		own.UseMonitor = &monitored
	}
	if _, err := own.Parse(); err != nil {
		t.wrongBinding(*f, b, "the schedule %q of %s (%s): %v", own.Schedule, b.Type, b.Name, err)
	}
	to.Trigger.Timer, to.Retry = &own, fixed(1, 0)
	f.trigger = fmt.Sprintf("schedule %s, in %s", own.Schedule, own.Timezone)
}

// azure returns what a worker needs to know of a function.
func (f Function) azure() *configs.AzureFunction {
	out := &configs.AzureFunction{Entry: f.Entry, File: f.File, HTTPType: f.HTTPType, Retry: f.retry}
	for _, b := range f.Bindings {
		out.Bindings = append(out.Bindings, b.Raw)
	}
	return out
}

// fixed returns retries with the same delay each time.
func fixed(attempts int, delay time.Duration) configs.Retry {
	d := configs.Duration(min(max(delay, 0), 24*time.Hour))
	return configs.Retry{MaxAttempts: attempts, Initial: d, Max: d, Mode: "hold"}
}

// checkOutputs checks the outputs of a function, and adds their connections.
func (t *Translation) checkOutputs(f *Function) {
	for _, b := range f.Bindings {
		if k, known := kindOf(b); known && k.describe != nil {
			f.outputs = append(f.outputs, fmt.Sprintf("%s %s: %s", b.Type, b.Name, k.describe(t, f, b)))
		}
	}
	slices.Reverse(f.outputs) // decorators are applied from the last to the first
}

var reference = regexp.MustCompile(`%([^%]+)%`)

// name returns a field that names an entity, with the settings that it refers to as %NAME%.
func (t *Translation) name(f Function, b Binding, field string) string {
	text := b.text(field)
	if text == "" {
		t.wrongBinding(f, b, "the binding %s (%s) has no %s", b.Type, b.Name, field)
		return ""
	}
	return reference.ReplaceAllStringFunc(text, func(whole string) string {
		name := strings.Trim(whole, "%")
		value, _, known := t.app.Settings.Lookup(name)
		if !known || value == "" {
			t.wrongBinding(f, b, "no setting %s, which %s of %s (%s) refers to as %s, in the environment or in the Values of %s", name, field, b.Type, b.Name, whole, settingsFile)
			return whole
		}
		return value
	})
}

// connection returns the name of a binding's connection in the configuration, and adds it.
func (t *Translation) connection(f Function, b Binding, of *service) string {
	setting := b.text("connection")
	if setting == "" {
		setting = of.usual
	}
	name := strings.NewReplacer(".", "-", "/", "-", `\`, "-", " ", "-").Replace(strings.TrimLeft(setting, "-"))
	if have, known := t.connections[name]; known {
		if !of.fits(have.Connection) {
			t.wrongBinding(f, b, "the connection %s is not one to %s, which %s (%s) needs", setting, of.name, b.Type, b.Name)
		}
		return name
	}
	c, err := t.app.Settings.findConnection(setting, of)
	if err != nil {
		t.wrongBinding(f, b, "the connection of %s (%s): %v", b.Type, b.Name, err)
		return name
	}
	if f.Disabled == "" {
		t.connections[name] = c
	}
	return name
}

// policy is a retry policy, in the form of @app.retry or function.json.
type policy map[string]any

// field returns a value by its name in function.json, or in the decorator.
func (p policy) field(name string) string {
	for key, value := range p {
		if strings.EqualFold(strings.ReplaceAll(key, "_", ""), name) && value != nil {
			if n, isNumber := value.(float64); isNumber {
				return strconv.FormatFloat(n, 'f', -1, 64)
			}
			return fmt.Sprint(value)
		}
	}
	return ""
}

// retry returns the retries of a function with @app.retry, or of an app with retry in host.json.
func (t *Translation) retry(f Function) (out configs.Retry, given bool) {
	p := make(policy)
	if err := json.Unmarshal(f.retry, &p); len(f.retry) > 0 && err != nil {
		t.wrong(f, f.Line, "its retry cannot be read: %v", err)
		return out, false
	}
	if len(p) == 0 {
		for _, key := range []string{"strategy", "maxRetryCount", "delayInterval", "minimumInterval", "maximumInterval"} {
			if s, found := t.app.host.lookup("retry." + key); found {
				p[key] = s.text
			}
		}
	}
	if len(p) == 0 {
		return out, false
	}
	interval := func(name string, def time.Duration) time.Duration {
		text := p.field(name)
		if text == "" {
			return def
		}
		d, err := parseSpan(text)
		if err != nil {
			t.wrong(f, f.Line, "%s of its retry: %v", name, err)
		}
		return min(max(d, 0), 24*time.Hour)
	}
	count, err := strconv.Atoi(p.field("maxretrycount"))
	if err != nil || count < -1 {
		t.wrong(f, f.Line, "max_retry_count of its retry is %q; write a whole number, or -1 for ever", p.field("maxretrycount"))
	}
	attempts := min(count+1, 1000)
	if count == -1 {
		attempts = 1000
	}
	switch strings.ToLower(strings.ReplaceAll(p.field("strategy"), "_", "")) {
	case "fixeddelay":
		return fixed(max(attempts, 1), interval("delayinterval", 0)), true
	case "exponentialbackoff":
		out = fixed(max(attempts, 1), max(interval("minimuminterval", time.Second), time.Second))
		out.Max = max(configs.Duration(interval("maximuminterval", 24*time.Hour)), out.Initial)
		out.Jitter = 0.2
		return out, true
	}
	t.wrong(f, f.Line, "strategy of its retry is %q; write fixed_delay or exponential_backoff", p.field("strategy"))
	return out, false
}

// general sets what does not belong to a function.
func (t *Translation) general() {
	c := t.Config
	c.Connections = make(map[string]configs.Connection)
	for name, of := range t.connections {
		one := withDefaults[configs.Connection]()
		one.ConnectionString, one.Namespace, one.StorageAccount, one.Endpoint = of.ConnectionString, of.Namespace, of.StorageAccount, of.Endpoint
		one.ClientID, one.TenantID = of.ClientID, of.TenantID
		if of.Identity != "" {
			one.Identity = of.Identity
		}
		c.Connections[name] = one
	}
	c.Apps = map[string]configs.App{AppName: t.app.workers()}
	if level := t.app.host.level(); level != "" {
		c.Log.Level = level
	}
}
