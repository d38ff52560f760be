package functionapp

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/problems"
)

// functionFile describes a function of model v1, in its folder.
const functionFile = "function.json"

// Described is a function of model v1: a folder with function.json.
type Described struct {
	Name string `json:"name"`
	// Script is the file of the function, relative to the app, and Entry the function in it.
	Script   string            `json:"script"`
	Entry    string            `json:"entry"`
	Bindings []json.RawMessage `json:"bindings"`

	retry    json.RawMessage
	disabled string // why it does not run; "": it runs
	lines    []int  // of the bindings, in function.json
}

// readDescribed reads the functions of model v1, and returns their problems. A function with a
// problem is left out. Those of a custom handler have no file of Python.
func readDescribed(dir string, s Settings, custom bool) (out []Described, errs configs.Errors) {
	files, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*", functionFile))
	if err != nil {
		return nil, configs.Errors{{File: dir, Message: err.Error()}}
	}
	slices.Sort(files)
	for _, file := range files {
		folder := filepath.Base(filepath.Dir(file))
		if strings.HasPrefix(folder, ".") {
			continue
		}
		name := folder + "/" + functionFile
		d, _ := readDocument(dir, name)
		one := Described{Name: folder}
		excluded, _ := child(d.root, "excluded")
		if text, _ := scalar(excluded); strings.EqualFold(text, "true") {
			continue
		}
		one.read(d, dir, s, custom)
		if found := errorsOf(d); len(found) > 0 {
			errs = append(errs, found...)
			continue
		}
		out = append(out, one)
	}
	return out, errs
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

func (f *Described) read(d *document, dir string, s Settings, custom bool) {
	if len(d.Problems) > 0 {
		return
	}
	if custom {
		f.Script = d.Name
	} else {
		if f.Entry = d.textOf(d.root, "entryPoint"); f.Entry == "" {
			f.Entry = "main"
		}
		f.readScript(d, dir)
	}
	if retry, found := child(d.root, "retry"); found {
		f.retry = standard(retry)
	}
	if disabled, found := child(d.root, "disabled"); found {
		text, _ := scalar(disabled)
		if value, from, given := s.Lookup(text); given && text != "" && truthy(value) {
			f.disabled = fmt.Sprintf("disabled by %s (%s), which function.json names", text, from)
		} else if strings.EqualFold(text, "true") {
			f.disabled = "disabled in " + d.Name
		}
	}
	f.readBindings(d)
}

func (f *Described) readBindings(d *document) {
	bindings, found := child(d.root, "bindings")
	list, isList := bindings.Value.(*hujson.Array)
	if !found || !isList {
		d.Report(d.at(d.root), "it has no list of bindings; add: \"bindings\": [ ... ], with one trigger")
		return
	}
	var triggers []string
	for _, element := range list.Elements {
		kind, name, direction := d.textOf(element, "type"), d.textOf(element, "name"), d.textOf(element, "direction")
		switch {
		case kind == "":
			d.Report(d.at(element), "this binding has no type, such as queueTrigger")
		case name == "":
			d.Report(d.at(element), "this binding has no name; write that of the parameter of the function, or $return")
		case !slices.Contains([]string{"", "in", "out", "inout"}, strings.ToLower(direction)):
			value, _ := child(element, "direction")
			d.Report(d.at(value), "%q is not a direction; write in or out", direction)
		}
		if strings.HasSuffix(strings.ToLower(kind), "trigger") {
			triggers = append(triggers, kind+" "+name)
		}
		f.Bindings = append(f.Bindings, standard(element))
		f.lines = append(f.lines, d.at(element).Line)
	}
	switch len(triggers) {
	case 1:
	case 0:
		d.Report(d.at(bindings), "function %s has no trigger; add exactly one binding such as queueTrigger or httpTrigger", f.Name)
	default:
		d.Report(d.at(bindings), "function %s has %d triggers, %s; it must have exactly one: make a function for each", f.Name, len(triggers), strings.Join(triggers, " and "))
	}
}

// readScript finds the file of the function.
func (f *Described) readScript(d *document, dir string) {
	at, script := d.at(d.root), d.textOf(d.root, "scriptFile")
	if value, found := child(d.root, "scriptFile"); found {
		at = d.at(value)
	}
	given := script
	if script == "" {
		script = "__init__.py"
	}
	full := filepath.Join(dir, f.Name, filepath.FromSlash(script))
	relative, err := filepath.Rel(dir, full)
	if err != nil || strings.HasPrefix(relative, "..") {
		d.Report(at, "scriptFile is %s, which is outside of the app; move the file into the app", script)
		return
	}
	if filepath.Ext(script) != ".py" {
		d.Report(at, "scriptFile is %s, which is not a Python file; drover runs function apps in Python", script)
		return
	}
	if info, err := os.Stat(full); err != nil || info.IsDir() {
		files, _ := filepath.Glob(filepath.Join(escapeGlob(filepath.Dir(full)), "*.py"))
		for i := range files {
			files[i] = filepath.Base(files[i])
		}
		hint := problems.Hint(script, files)
		if given == "" {
			d.Report(at, "function %s has no file __init__.py, and function.json no scriptFile%s", f.Name, hint)
		} else {
			d.Report(at, "function %s: scriptFile is %s, but there is no such file in %s%s", f.Name, given, filepath.Dir(full), hint)
		}
		return
	}
	f.Script = filepath.ToSlash(relative)
}

// truthy reports whether a setting is on.
func truthy(value string) bool { return strings.EqualFold(value, "true") || value == "1" }
