package configs

import (
	"context"
	"os"
	"reflect"

	"github.com/drover-run/drover/configs/readfile"
)

// SetDefaults sets the zero fields with a tag `default` of a struct, and of the structs in it. of
// points to the struct; its fields have the tags and the types of a Config's.
func SetDefaults(of any) { setDefaults(reflect.ValueOf(of).Elem()) }

// LoadPolicy reads a file with a scaling policy of instances, which is not a configuration. It is
// as strict as Load. into points to the struct to fill, with its defaults already set; scale points
// to its field for the key scale. The error is an Errors with all problems of the file, or the
// reason why the file cannot be read.
func LoadPolicy(path string, env Env, into any, scale *Scale) error {
	text, dir, err := readfile.Config(context.Background(), path, func(string, *os.File) error { return nil }) // it runs no commands
	if err != nil {
		return err
	}
	d := newDecoder(path, text, dir, env)
	if body := d.body(text); body != nil {
		d.decode(body, reflect.ValueOf(into).Elem(), "", field{})
	}
	if err := d.Err(); err != nil {
		return err
	}
	x := &completion{new(Config), d.Source, env}
	x.scale("scale", scale)
	if !scale.Instances.Scaled() {
		x.wrong("scale", "nothing scales: set instances, such as {min: 1, max: 100}")
	}
	return x.Err()
}
