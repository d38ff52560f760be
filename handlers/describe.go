package handlers

import (
	"context"

	"github.com/drover-run/drover/triggers"
)

// Described is a context that takes the properties of the function's output. It is its own
// value for describedKey, so that contexts made from it lead to it.
type Described interface {
	context.Context

	// Describe sets the properties that the output has when the function is done. The last
	// call counts.
	Describe(properties triggers.Properties)
}

type describedKey struct{}

// DescribedKey is the key of a Described among the values of a context.
var DescribedKey any = describedKey{}

// Describe gives the output of the call that ctx is of properties, such as
// triggers.ContentType, of those in triggers.Settable, and attributes, whose names begin
// with triggers.AttributePrefix. Where nobody takes them it does nothing. A Go function may
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
