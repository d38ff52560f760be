// Package custom translates the settings of a custom handler in host.json and function.json: a web server,
// in any language, that has the functions of an app. Package functionapp calls it.
package custom

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/posting"
)

// The keys of host.json.
const (
	Section = "customHandler"
	Program = Section + ".description.defaultExecutablePath"
	Forward = Section + ".enableForwardingHttpRequest"

	description = Section + ".description."
)

// maxResponse bounds the response of a custom handler: it may be that of an HTTP function.
const maxResponse = 100 << 20

// Files are what Server reads.
type Files struct {
	Dir string // of the app
	// Lookup returns a value of host.json, and its place.
	Lookup func(dotted string) (text, from string, found bool)
	// Expand replaces each %NAME% in a text by the setting.
	Expand func(text string) string
	// IsFile reports whether a path is a file.
	IsFile func(path string) bool
}

// Server returns the program of the custom handler.
func Server(f Files) *posting.Server {
	program, from, _ := f.Lookup(Program)
	s := &posting.Server{Program: f.Expand(program), Dir: f.Dir, From: Section + ", " + from}
	if base := f.Expand(f.text("workerDirectory")); base != "" && !filepath.IsAbs(s.Program) {
		if inside := filepath.Join(base, s.Program); f.IsFile(f.inside(inside)) {
			s.Program = inside
		}
	}
	if dir := f.text("workingDirectory"); dir != "" {
		s.Dir = f.inside(dir)
	}
	s.Arguments = f.texts("arguments")
	if path := f.Expand(f.text("defaultWorkerPath")); path != "" {
		s.Arguments = append(s.Arguments, `"`+path+`"`)
	}
	s.Arguments = append(s.Arguments, f.texts("workerArguments")...)
	port, _, _ := f.Lookup(Section + ".port")
	s.Port, _ = strconv.Atoi(port) // checked before
	return s
}

// inside returns a path that may be relative to the app.
func (f Files) inside(path string) string {
	if path = filepath.FromSlash(path); filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(f.Dir, path)
}

// text returns a value of the description; "" if it is missing.
func (f Files) text(key string) string {
	text, _, _ := f.Lookup(description + key)
	return text
}

// texts returns a list of the description. An override may have it as JSON in one text.
func (f Files) texts(key string) (out []string) {
	if json.Unmarshal([]byte(f.text(key)), &out) == nil {
		return out
	}
	for i := 0; ; i++ {
		text, _, found := f.Lookup(description + key + "." + strconv.Itoa(i))
		if !found {
			return out
		}
		out = append(out, text)
	}
}

// Binding is a binding of a function.
type Binding struct {
	Type, Name, DataType string
	Out                  bool
}

// Handler returns the handler of a function: the web server of an app. trigger is the name of the
// trigger's binding. forward passes on HTTP requests unchanged, if the function has no other
// binding, as the host does.
func Handler(app, function, trigger string, all []Binding, forward bool) *posting.Handler {
	out := new(posting.Handler)
	decode.Defaults(out)
	out.URL, out.App, out.Format, out.Binding = "http://127.0.0.1/"+function, app, "azure", trigger
	out.MaxResponse = maxResponse
	for _, b := range all {
		switch {
		case strings.EqualFold(b.Type, "timerTrigger"):
			out.DataType = "json"
		case !b.Out && b.Name == trigger && strings.EqualFold(b.DataType, "binary"):
			out.DataType = "binary"
		case b.Out && strings.EqualFold(b.Type, "http"):
			out.Reply = b.Name
		case b.Out:
			out.Outputs = append(out.Outputs, b.Name)
		}
	}
	out.Forward = forward && out.Reply != "" && len(all) == 2
	return out
}
