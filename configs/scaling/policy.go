package scaling

import (
	"context"
	"os"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/readfile"
	"github.com/drover-run/drover/configs/values"
)

// LoadPolicy reads a file with a scaling policy of instances, which is not a configuration. It is
// as strict as the loader of configurations. into points to the struct to fill, with its defaults
// already set; scale points to its field for the key scale. The error is a problems.Errors with all
// problems of the file, or the reason why the file cannot be read.
func LoadPolicy(path string, env values.Env, into any, scale *Scale) error {
	text, dir, err := readfile.Config(context.Background(), path, func(string, *os.File) error { return nil }) // it runs no commands
	if err != nil {
		return err
	}
	source := problems.New(path, text, dir, env)
	decode.Document(source, into, nil)
	if err := source.Err(); err != nil {
		return err
	}
	scale.Complete(source, "scale")
	if !scale.Instances.Scaled() {
		source.Wrong("scale", "nothing scales: set instances, such as {min: 1, max: 100}")
	}
	return source.Err()
}
