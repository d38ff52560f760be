package configs

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/drover-run/drover/configs/decode"
)

// filledIn returns a copy with the defaults of outputs that a program made.
func (o Outputs) filledIn() Outputs {
	out := slices.Clone(o)
	for i := range out {
		for _, own := range copyKinds(&out[i]) {
			decode.Defaults(own)
		}
	}
	return out
}

// outputs completes a copy of the outputs.
func (x *completion) outputs(path string, given Outputs) Outputs {
	if _, written := x.Where[path]; written && len(given) == 0 {
		x.Wrong(path, "the list is empty; remove the key to drop results")
	}
	out := slices.Clone(given)
	for i := range out {
		at := path
		if _, listed := x.Where[path+"[0]"]; listed || len(out) > 1 {
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		x.output(at, &out[i])
		for _, earlier := range out[:i] {
			if reflect.DeepEqual(earlier, out[i]) {
				x.Wrong(at, "it is listed twice; each result would be sent twice")
			}
		}
	}
	return out
}

func (x *completion) output(path string, o *Output) {
	if x.oneKind(path, "results go to", pointedKinds(*o)) {
		copyKinds(o)
		o.target().completeOutput(x, path)
	}
}
