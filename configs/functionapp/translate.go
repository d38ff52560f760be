package functionapp

import (
	"bytes"
	"cmp"
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
	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/functionapp/custom"
	"github.com/drover-run/drover/configs/functionapp/hostkeys"
	"github.com/drover-run/drover/configs/functionapp/httphost"
	"github.com/drover-run/drover/configs/posting"
)

// Translation is what drover makes of a function app.
type Translation struct {
	// Config has the functions that drover runs. It is not completed.
	Config *configs.Config
	// Functions are all functions of the app, in the order of their names.
	Functions []Function
	// Warnings name what may be a mistake.
	Warnings []string
	// Errors are the problems of functions; the others run.
	Errors configs.Errors
	// Unloadable reports that the code as a whole cannot be loaded; Errors has the reason.
	Unloadable bool

	app         *App
	index       Index
	connections map[string]found
	failed      map[string]string // the first problem of each function that has one
}

// Function is a function of the app.
type Function struct {
	Name, Module, Entry, File string
	Line                      int
	Bindings                  []Binding
	HTTPType                  string
	// Disabled and Unsupported have the reason why it does not run; "" otherwise.
	Disabled, Unsupported string

	trigger string  // as text
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
	// output returns an output; nil for a trigger, and for a response.
	output func(t *Translation, f *Function, b Binding) configs.Output
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
var kinds = slices.Concat(queueKinds, busKinds, streamKinds, []kind{
	{name: "httpTrigger", translate: httpTrigger},
	{name: "http", out: true},
	{name: "timerTrigger", translate: timerTrigger},
})

// Translate returns the configuration of an app and its index.
func (a *App) Translate(index Index) *Translation {
	if a.host.isCustom() {
		index = a.customIndex()
	}
	t := &Translation{Config: configs.New(), app: a, index: index, connections: make(map[string]found), failed: make(map[string]string)}
	t.Config.Functions = make(map[string]configs.Function)
	setServer(t)
	t.Warnings = append(t.Warnings, a.warnings...)
	t.Warnings = append(t.Warnings, index.Warnings...)
	for _, name := range index.Shadowed {
		t.Warnings = append(t.Warnings, fmt.Sprintf("%s has the name of a module of Python's standard library: on Azure it may replace that for all packages; drover keeps the two apart. Rename it", name))
	}
	for _, p := range a.errs {
		t.fail(filepath.Dir(p.File), p)
	}
	for _, wrong := range index.Problems {
		t.fail(wrong.Function, a.problem(wrong))
	}
	t.addFunctions()
	for i := range t.Functions {
		t.translate(&t.Functions[i])
	}
	t.general()
	listNotRun(t)
	t.Unloadable = slices.ContainsFunc(index.Problems, func(w Wrong) bool {
		return w.Function == "" || len(t.Config.Functions) == 0
	})
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

// fail adds a problem of a function, or of the whole app.
func (t *Translation) fail(function string, p configs.Problem) {
	t.Errors = append(t.Errors, p)
	if _, known := t.failed[function]; !known && function != "" {
		at := t.app.placed(configs.Errors{p})[0]
		t.failed[function] = strings.TrimSuffix(configs.Problem{File: at.File, Position: at.Position, Message: strings.TrimPrefix(p.Message, "function "+function+": ")}.String(), "\n")
	}
}

// wrong adds a problem of a function.
func (t *Translation) wrong(f Function, line int, format string, args ...any) {
	t.fail(f.Name, t.app.problemAt(f.File, line, "function "+f.Name+": "+format, args...))
}

// wrongBinding adds a problem of a binding.
func (t *Translation) wrongBinding(f Function, b Binding, format string, args ...any) {
	t.fail(f.Name, t.app.problemAt(b.File, b.Line, "function "+f.Name+": "+format, args...))
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
		delete(t.failed, f.Name)
	}
}

// leave sets the reason why a function does not run.
func (f *Function) leave(b Binding, why string) {
	if f.Unsupported == "" {
		f.Unsupported, f.at = why, b
	}
}

// listNotRun lists the functions that do not run.
func listNotRun(t *Translation) {
	for _, f := range t.Functions {
		switch {
		case f.Disabled != "":
			t.Config.NotRun = append(t.Config.NotRun, configs.NotRun{Function: f.Name, Reason: f.Disabled, Disabled: true})
		case f.Unsupported != "":
			t.Config.NotRun = append(t.Config.NotRun, configs.NotRun{Function: f.Name, Reason: f.Unsupported})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.failed)) {
		t.Config.NotRun = append(t.Config.NotRun, configs.NotRun{Function: name, Reason: t.failed[name], Failed: true})
	}
}

// DescribeUnsupported returns a text for each reason why drover does not run functions.
func (t *Translation) DescribeUnsupported() (out []string) {
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
			out = append(out, fmt.Sprintf("%d functions do not run, %s: %s", len(names), strings.Join(names, ", "), why))
			continue
		}
		out = append(out, fmt.Sprintf("%s: function %s does not run: %s", filepath.Join(t.app.Name, places[why]), names[0], why))
	}
	return out
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
	out.Timeout, out.LogLevel = configs.Duration(t.app.host.timeout()), t.app.host.functionLevel(f.Name)
	if k, known := kindOf(trigger); known {
		k.translate(t, f, trigger, &out)
	}
	out.Output = t.outputs(f)
	policy, given := t.retry(f)
	if given && out.Trigger.HTTP == nil { // on Azure, too, requests have no retries
		out.Retry = policy
	}
	limitDeliveries(&out, given)
	if t.app.host.isCustom() {
		out.Handler.HTTP = customHandler(t.app, f)
	} else {
		out.Handler.Python = &configs.PythonHandler{App: AppName, Module: f.Module, Function: f.Name, Azure: describeAzure(t, f)}
	}
	return out
}

// httpTrigger translates an HTTP trigger: route, methods and level.
func httpTrigger(t *Translation, f *Function, b Binding, to *configs.Function) {
	own := withDefaults[configs.HTTPTrigger]()
	own.Route, own.Server.Prefix = f.Name, t.Config.HTTP.Prefix
	if b.text("route") != "" {
		own.Route = t.name(*f, b, "route")
	}
	if err := httphost.SetTrigger(&own, b.words("methods"), b.text("authLevel")); err != nil {
		t.wrongBinding(*f, b, "%s (%s): %v", b.Type, b.Name, err)
		return
	}
	if n, given := t.app.host.number("extensions.http.maxConcurrentRequests", 0); given && n > 0 {
		to.Concurrency = n
	}
	to.Trigger.HTTP, to.Retry = &own, fixed(1, 0)
	f.trigger = httphost.DescribeTrigger(&own, f.HTTPType)
}

// setServer sets the server of HTTP functions.
func setServer(t *Translation) {
	httphost.SetServer(&t.Config.HTTP, httphost.Source{
		Setting: t.app.Settings.Lookup,
		Keys: func(yield func(name, text string) bool) {
			for _, s := range t.app.host.settings {
				if !yield(s.name, s.text) {
					return
				}
			}
		},
	})
}

// timerTrigger translates a timer. A run that fails is not repeated, as on Azure, unless the function
// has a retry.
func timerTrigger(t *Translation, f *Function, b Binding, to *configs.Function) {
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
	shareTimer(t, &own)
	if _, err := own.Parse(); err != nil {
		t.wrongBinding(*f, b, "the schedule %q of %s (%s): %v", own.Schedule, b.Type, b.Name, err)
	}
	to.Trigger.Timer, to.Retry = &own, fixed(1, 0)
	f.trigger = fmt.Sprintf("schedule %s, in %s", own.Schedule, own.Timezone)
}

// hostIDSetting names the app among all that use a storage account.
const hostIDSetting = "AzureFunctionsWebHost__hostid"

// maxTimerGroup is how long the name of a group of timers may be.
const maxTimerGroup = 24

// shareTimer sets what keeps the state of a timer, if the app runs on several machines: the storage
// account of the app. Otherwise data_dir keeps it, so that an app with timers needs no storage.
func shareTimer(t *Translation, own *configs.TimerTrigger) {
	id, _, named := t.app.Settings.Lookup(hostIDSetting)
	if !named && !t.app.shared {
		return
	}
	c, err := t.app.Settings.findConnection(storage.usual, &storage)
	if err != nil {
		return // data_dir keeps the state, and configs warns
	}
	if id == "" {
		id = filepath.Base(t.app.Dir)
	}
	group := strings.Trim(notInGroup.ReplaceAllString(strings.ToLower(id), "-"), "-")
	own.Group = cmp.Or(strings.Trim(group[:min(len(group), maxTimerGroup)], "-"), AppName)
	own.Connection = storage.usual
	t.connections[storage.usual] = c
}

var notInGroup = regexp.MustCompile(`[^a-z0-9]+`)

// describeAzure returns the description of a function for a worker.
func describeAzure(t *Translation, f *Function) *configs.AzureFunction {
	out := &configs.AzureFunction{Entry: f.Entry, File: f.File, Script: t.app.Script, HTTPType: f.HTTPType, Retry: f.retry}
	for _, b := range f.Bindings {
		raw := new(bytes.Buffer)
		_ = json.Compact(raw, b.Raw) // it was decoded before
		out.Bindings = append(out.Bindings, raw.Bytes())
	}
	return out
}

// fixed returns retries with the same delay each time.
func fixed(attempts int, delay time.Duration) configs.Retry {
	d := configs.Duration(min(max(delay, 0), 24*time.Hour))
	return configs.Retry{MaxAttempts: attempts, Initial: d, Max: d, Mode: "hold"}
}

// outputs returns the outputs of a function, in the order of their bindings.
func (t *Translation) outputs(f *Function) (out configs.Outputs) {
	for _, b := range f.Bindings {
		k, known := kindOf(b)
		if known && k.translate == nil && k.output == nil {
			f.outputs = append(f.outputs, fmt.Sprintf("%s %s: the response", b.Type, b.Name))
		}
		if !known || k.output == nil {
			continue
		}
		if !outputName.MatchString(b.Name) {
			t.wrongBinding(*f, b, "%q cannot be the name of an output: letters, digits and _, at most 64", b.Name)
		}
		one := k.output(t, f, b)
		f.outputs = append(f.outputs, fmt.Sprintf("%s %s: %v", b.Type, b.Name, one))
		one.Name = b.Name
		out = append(out, one)
	}
	slices.Reverse(f.outputs) // decorators are applied from the last to the first
	return out
}

// outputName matches the names that an output of a configuration can have.
var outputName = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$-]{0,63}$`)

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

// mostAttempts is the most that a configuration allows.
const mostAttempts = 1000

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

// retry returns the retries of a function with @app.retry, or of an app with retry in host.json. Those
// of the app become the function's own, as the worker gets it.
func (t *Translation) retry(f *Function) (out configs.Retry, given bool) {
	p := make(policy)
	if err := json.Unmarshal(f.retry, &p); len(f.retry) > 0 && err != nil {
		t.wrong(*f, f.Line, "its retry cannot be read: %v", err)
		return out, false
	}
	if len(p) == 0 {
		p = make(policy) // the index has null for none
		for _, key := range []string{"strategy", "maxRetryCount", "delayInterval", "minimumInterval", "maximumInterval"} {
			if s, found := t.app.host.lookup("retry." + key); found {
				p[key] = s.text
			}
		}
		f.retry, _ = json.Marshal(p) // texts alone
	}
	if len(p) == 0 {
		f.retry = nil
		return out, false
	}
	interval := func(name string, def time.Duration) time.Duration {
		text := p.field(name)
		if text == "" {
			return def
		}
		d, err := hostkeys.ParseSpan(text)
		if err != nil {
			t.wrong(*f, f.Line, "%s of its retry: %v", name, err)
		}
		return min(max(d, 0), 24*time.Hour)
	}
	count, err := strconv.Atoi(p.field("maxretrycount"))
	if err != nil || count < -1 {
		t.wrong(*f, f.Line, "max_retry_count of its retry is %q; write a whole number, or -1 for ever", p.field("maxretrycount"))
	}
	attempts := min(count+1, mostAttempts)
	if count == -1 {
		attempts = mostAttempts
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
	t.wrong(*f, f.Line, "strategy of its retry is %q; write fixed_delay or exponential_backoff", p.field("strategy"))
	return out, false
}

// general sets what does not belong to a function.
func (t *Translation) general() {
	c := t.Config
	c.Connections = make(map[string]configs.Connection)
	for name, of := range t.connections {
		one := of.Connection
		decode.Defaults(&one)
		c.Connections[name] = one
	}
	c.Apps = map[string]configs.App{AppName: t.app.workers()}
	t.app.host.setLevel(c)
}

// customHandler returns the handler of a function in the custom handler.
func customHandler(a *App, f *Function) *posting.Handler {
	forward, _ := a.host.lookup(custom.Forward)
	var all []custom.Binding
	for _, b := range f.Bindings {
		all = append(all, custom.Binding{Type: b.Type, Name: b.Name, DataType: b.text("dataType"), Out: b.Out})
	}
	return custom.Handler(AppName, f.Name, f.Trigger().Name, all, strings.EqualFold(forward.text, "true"))
}
