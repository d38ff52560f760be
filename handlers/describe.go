package handlers

import (
	"context"

	"github.com/drover-run/drover/triggers"
)

// Described is a context that receives the properties of the function's output. It is its own
// value for describedKey, so that it can be found from contexts derived from it.
type Described interface {
	context.Context

	// Describe sets the properties of the function's output. The last call counts.
	Describe(properties triggers.Properties)
}

type describedKey struct{}

// DescribedKey is the key of a Described among the values of a context.
var DescribedKey any = describedKey{}

// Describe sets properties of the output of the call with the context ctx: those in
// triggers.Settable, such as triggers.ContentType, and attributes, whose names begin
// with triggers.AttributePrefix. It does nothing for a context of another kind. A Go function may
// call it before it returns; properties must not be changed afterwards.
func Describe(ctx context.Context, properties triggers.Properties) {
	d, ok := ctx.(Described)
	if !ok {
		d, ok = ctx.Value(DescribedKey).(Described)
	}
	if ok {
		d.Describe(properties)
	}
}
