// Package pairs reads flags with a name and a value, such as a header of a message. The command line
// calls it, from one goroutine.
package pairs

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Pairs are names with values. Each flag adds one, as NAME=VALUE or, as in curl, as "NAME: VALUE". The
// first = or : ends the name. Spaces around the colon are removed.
type Pairs map[string]string

// Decode implements kong.MapperValue.
func (p *Pairs) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("NAME=VALUE", &text); err != nil {
		return err
	}
	end := strings.IndexAny(text, "=:")
	if end < 0 || strings.TrimSpace(text[:end]) == "" {
		return fmt.Errorf("%q is not NAME=VALUE or NAME: VALUE, such as tenant=7 or \"tenant: 7\"", text)
	}
	name, value := text[:end], text[end+1:]
	if text[end] == ':' {
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	}
	if *p == nil {
		*p = make(Pairs)
	}
	(*p)[name] = value
	return nil
}
