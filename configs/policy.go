package configs

import (
	"context"
	"os"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/readfile"
)

// SetDefaults sets the zero fields with a tag `default` of a struct, and of the structs in it. of
// points to the struct; its fields have the tags and the types of a Config's.
func SetDefaults(of any) { decode.Defaults(of) }

// LoadPolicy reads a file with a scaling policy of instances, which is not a configuration. It is
// as strict as Load. into points to the struct to fill, with its defaults already set; scale points
// to its field for the key scale. The error is an Errors with all problems of the file, or the
// reason why the file cannot be read.
func LoadPolicy(path string, env Env, into any, scale *Scale) error {
	text, dir, err := readfile.Config(context.Background(), path, func(string, *os.File) error { return nil }) // it runs no commands
	if err != nil {
		return err
	}
	source := problems.New(path, text, dir, env)
	decode.Document(source, into, nil)
	if err := source.Err(); err != nil {
		return err
	}
	x := &completion{new(Config), source}
	x.scale("scale", scale)
	if !scale.Instances.Scaled() {
		x.Wrong("scale", "nothing scales: set instances, such as {min: 1, max: 100}")
	}
	return x.Err()
}
