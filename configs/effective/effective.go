// Package effective lists the values of a completed configuration, each with its origin. Secrets are
// hidden. The command config show calls it, from one goroutine.
package effective

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/problems"
)

// The kinds of origins.
const (
	FromDefault     = "default"
	FromFile        = "file"
	FromDefaults    = "defaults"     // the defaults block of the file
	FromEnvironment = "environment"  // a variable of the process, or of an environment file
	FromApp         = "function app" // host.json, the app's settings or its code
)

// Value is a value of the configuration.
type Value struct {
	Path string `json:"path"` // such as functions.orders.timeout
	// Text is the value as written in a file. A secret is ***.
	Text string `json:"value"`
	// From is the kind of the origin, and Where is its place, such as drover.yaml:7.
	From  string `json:"from"`
	Where string `json:"where,omitempty"`

	keys []string // of the path; the number of an item is one, in brackets
}

// Hidden is the text of a secret.
const Hidden = "***"

// List returns the values of a completed configuration, including defaults, in the order of the fields.
// Entries of a map are sorted by name.
func List(c *configs.Config) []Value {
	l := &lister{cfg: c, file: c.Places(), host: readHost(c)}
	l.addStruct(reflect.ValueOf(c).Elem(), nil)
	return l.values
}

type lister struct {
	cfg    *configs.Config
	file   *problems.Source
	host   map[string]string // where the keys of host.json are set
	values []Value
}

func join(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }

// below returns the keys of a path below another one.
func below(keys []string, key string) []string { return append(slices.Clone(keys), key) }

// pathOf returns the path of keys.
func pathOf(keys []string) string { return strings.ReplaceAll(strings.Join(keys, "."), ".[", "[") }

func (l *lister) addStruct(v reflect.Value, keys []string) {
	for _, f := range decode.Fields(v.Type()) {
		if len(keys) == 0 && f.Name == "defaults" {
			continue // the functions have them
		}
		l.add(v.Field(f.Index), below(keys, f.Name), f, v.Type().Field(f.Index).Tag.Get("alone") != "")
	}
}

// add adds a value. alone reports whether it may replace the keys of its struct.
func (l *lister) add(v reflect.Value, keys []string, f decode.Field, alone bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			l.add(v.Elem(), keys, f, alone)
		}
	case reflect.Struct:
		l.addStruct(v, keys)
	case reflect.Map:
		for _, key := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }) {
			l.add(v.MapIndex(key), below(keys, key.String()), decode.Field{}, false)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			for i := range v.Len() {
				at := below(keys, fmt.Sprintf("[%d]", i))
				if !l.file.Given(pathOf(at)) && v.Len() == 1 {
					at = keys // a single one, without a list
				}
				l.addStruct(v.Index(i), at)
			}
			return
		}
		l.addScalar(v, keys, f, alone)
	default:
		l.addScalar(v, keys, f, alone)
	}
}

func (l *lister) addScalar(v reflect.Value, keys []string, f decode.Field, alone bool) {
	path := pathOf(keys)
	if !l.file.Given(path) && (v.IsZero() && f.Default == "" || !l.counts(keys)) {
		return
	}
	out := Value{Path: path, Text: l.textOf(v, path, f), keys: keys}
	at := keys
	if parent := keys[:len(keys)-1]; alone && !l.file.Given(path) && l.file.Given(pathOf(parent)) {
		at = parent
	}
	out.From, out.Where = l.originOf(at)
	l.values = append(l.values, out)
}

// counts reports whether a default has any effect: some keys of a connection apply only to one kind.
func (l *lister) counts(keys []string) bool {
	if keys[0] != "connections" || len(keys) != 3 {
		return true
	}
	switch c := l.cfg.Connections[keys[1]]; keys[2] {
	case "listen", "sync", "max_store":
		return c.Embedded()
	case "identity":
		return c.Namespace != "" || c.StorageAccount != ""
	}
	return true
}

// secretName matches the names of variables whose values are secret.
var secretName = regexp.MustCompile(`(?i)key|token|secret|passw|credential|connection|sas|pwd|auth|dsn|private`)

// plain matches a text that YAML reads as the same text.
var plain = regexp.MustCompile(`^[A-Za-z_./][A-Za-z0-9_./+-]*( [A-Za-z0-9_./+-]+)*$`)

// textOf returns a value as written in a file.
func (l *lister) textOf(v reflect.Value, path string, f decode.Field) string {
	if file, found := l.file.Files[path]; found && v.Kind() == reflect.String {
		return "file:" + file
	}
	secret := slices.ContainsFunc(l.file.Reads[path], secretName.MatchString)
	switch value := v.Interface().(type) {
	case configs.Secret:
		if value == "" {
			return `""`
		}
		return Hidden
	case configs.Strings:
		return l.listText(value, path)
	case configs.EnvFiles:
		return l.listText(configs.Strings(value), path)
	case configs.Ports:
		if value.Any() {
			return "any"
		}
		return strings.ReplaceAll(fmt.Sprint([]int(value)), " ", ", ")
	case fmt.Stringer:
		return value.String()
	}
	switch {
	case v.Kind() == reflect.String && secret:
		return Hidden
	case v.Kind() == reflect.String:
		return quoted(v.String())
	case f.Zero != "" && v.IsZero():
		return f.Zero
	}
	return fmt.Sprint(v.Interface())
}

func (l *lister) listText(list configs.Strings, path string) string {
	var out []string
	for i, text := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if slices.ContainsFunc(append(slices.Clone(l.file.Reads[path]), l.file.Reads[at]...), secretName.MatchString) {
			text = Hidden
		} else {
			text = quoted(text)
		}
		out = append(out, text)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// words are texts that YAML reads as something else.
var words = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}

func quoted(text string) string {
	if plain.MatchString(text) && !slices.Contains(words, strings.ToLower(text)) {
		return text
	}
	return strconv.Quote(text)
}

// originOf returns the kind of the origin of a value, and its place.
func (l *lister) originOf(keys []string) (from, where string) {
	at, kind := pathOf(keys), FromFile
	if inherited := l.file.Inherited[at]; !l.file.Given(at) && inherited != "" {
		at, kind = inherited, FromDefaults
	}
	if !l.file.Given(at) {
		return l.outside(keys)
	}
	return l.inFile(at, kind)
}

// inFile returns the origin of a value that the file has at a path.
func (l *lister) inFile(at, kind string) (from, where string) {
	where = fmt.Sprintf("%s:%d", l.file.Name, l.file.At(at).Line)
	if kind == FromDefaults {
		where = at + ", " + where
	}
	var variables []string
	for _, name := range l.readsOf(at) {
		if value, set := l.variable(name); set {
			variables = append(variables, value)
		}
	}
	if len(variables) > 0 {
		return FromEnvironment, strings.Join(variables, " and ") + ", in " + where
	}
	return kind, where
}

// readsOf returns the variables of a value, and of the items of a list.
func (l *lister) readsOf(path string) (names []string) {
	names = append(names, l.file.Reads[path]...)
	for _, item := range slices.Sorted(maps.Keys(l.file.Reads)) {
		if strings.HasPrefix(item, path+"[") && !strings.Contains(item, "].") {
			names = append(names, l.file.Reads[item]...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// variable describes an environment variable, and reports whether it is set.
func (l *lister) variable(name string) (text string, set bool) {
	if l.file.Env != nil {
		if _, set := l.file.Env(name); set {
			return "$" + name, true
		}
	}
	v, set := l.file.FileEnv[name]
	return fmt.Sprintf("%s of %s:%d", name, v.File, v.Line), set
}

// outside returns the origin of a value that is not in the file.
func (l *lister) outside(keys []string) (from, where string) {
	if keys[0] == "apps" && len(keys) == 3 {
		app := l.cfg.Apps[keys[1]]
		origin := map[string]string{"processes": app.ProcessesFrom, "threads": app.ThreadsFrom, "coroutines": app.CoroutinesFrom}[keys[2]]
		if text, set := l.variable(origin); set {
			return FromEnvironment, text
		}
		for _, name := range slices.Sorted(maps.Keys(l.cfg.Functions)) { // the path of a handler defines an app
			code, _ := l.cfg.Functions[name].Handler.Code()
			if at := fmt.Sprintf("functions.%s.handler.%s.%s", name, code.Language, keys[2]); code.App == keys[1] && l.file.Given(at) {
				return l.inFile(at, FromFile)
			}
		}
		if origin != "" && l.cfg.FunctionApp == nil {
			return FromDefault, origin
		}
	}
	if l.cfg.FunctionApp != nil {
		if where, found := l.fromHost(keys); found {
			return FromApp, where
		}
	}
	return FromDefault, ""
}
