package decode

import (
	"fmt"

	"github.com/goccy/go-yaml/token"

	"github.com/drover-run/drover/configs/problems"
)

const (
	// maxDepth bounds how deep values are nested.
	maxDepth = 64
	// maxKeys bounds the keys of one mapping.
	maxKeys = 5000
)

// level is an open list or mapping.
type level struct {
	column int // the column of its start; inBrackets if it has brackets
	keys   int
}

const inBrackets = -1

// findHostile returns the place where a text exceeds a bound, and which one; "" if there is none.
// The parser's time and memory grow with the square of the depth and of the keys of a mapping, so
// both are checked before it, on the tokens.
//
// A list or a mapping without brackets starts at a column further right than the enclosing one.
// Markers that can be repeated before a value (&anchor, !tag, ?) count as levels, too.
func findHostile(tokens token.Tokens) (at problems.Position, what string) {
	var open []level
	markers := 0
	for i, t := range tokens {
		bracketed := len(open) > 0 && open[len(open)-1].column == inBrackets
		isKey := t.Type == token.MappingValueType && i > 0
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open = append(open, level{column: inBrackets})
		case token.SequenceEndType, token.MappingEndType:
			if bracketed {
				open = open[:len(open)-1]
			}
		case token.SequenceEntryType, token.MappingValueType:
			column := t.Position.Column
			if isKey {
				column = tokens[i-1].Position.Column
			}
			for !bracketed && len(open) > 0 && open[len(open)-1].column > column {
				open = open[:len(open)-1]
			}
			if !bracketed && (len(open) == 0 || open[len(open)-1].column < column) {
				open = append(open, level{column: column})
			}
			if isKey && len(open) > 0 {
				open[len(open)-1].keys++
			}
		case token.DocumentHeaderType, token.DocumentEndType:
			open = nil
		}
		switch t.Type {
		case token.AnchorType, token.TagType, token.MappingKeyType, token.AliasType:
			markers++
		case token.StringType, token.IntegerType, token.FloatType, token.SingleQuoteType, token.DoubleQuoteType, token.NullType, token.BoolType:
			if i == 0 || tokens[i-1].Type != token.AnchorType && tokens[i-1].Type != token.AliasType {
				markers = 0 // a value, not the name of an anchor
			}
		}
		at := problems.Position{Line: t.Position.Line, Column: t.Position.Column}
		if len(open) > maxDepth || markers > maxDepth {
			return at, fmt.Sprintf("values are nested deeper than %d levels; no key of a configuration needs more than a few", maxDepth)
		}
		if len(open) > 0 && open[len(open)-1].keys > maxKeys {
			return at, fmt.Sprintf("this mapping has more than %d keys; split the configuration into several daemons", maxKeys)
		}
	}
	return problems.Position{}, ""
}
