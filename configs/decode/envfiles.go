package decode

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"

	"github.com/goccy/go-yaml/ast"

	"github.com/drover-run/drover/configs/envfile"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/values"
)

// decodeEnvFiles reads the names of environment files, and the files. If several set a variable, the last
// one is used.
func (d *decoder) decodeEnvFiles(n ast.Node, v reflect.Value, path string) {
	var names values.Strings
	d.decodeStrings(n, reflect.ValueOf(&names).Elem(), path)
	v.Set(reflect.ValueOf(values.EnvFiles(names)))
	for i, name := range names {
		at := d.Where[path]
		if item, listed := d.Where[fmt.Sprintf("%s[%d]", path, i)]; listed {
			at = item
		}
		if name == "" {
			d.Report(at, "%s: it is empty; name a file with one NAME=VALUE per line, such as .env", path)
			continue
		}
		variables, err := envfile.Read(name, d.Dir)
		var wrong *envfile.Error
		switch {
		case errors.As(err, &wrong):
			d.Report(at, "%s: %s:%d: %s", path, name, wrong.Line, wrong.Message)
		case err != nil && d.Lenient && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)):
		case err != nil:
			d.Report(at, "%s: %v", path, err)
		}
		for _, one := range variables {
			d.FileEnv[one.Name] = problems.Variable{Value: one.Value, File: name, Line: one.Line}
		}
	}
}
