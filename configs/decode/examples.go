package decode

import (
	"cmp"
	"strings"
)

// This file describes the correct shape of a value, for errors.

// exampleOf returns the correct shape of the keys at a path.
func exampleOf(path string, f Field) string {
	if path == "" {
		return "`version: 1`, and `functions:` with your functions indented below it"
	}
	return "`" + lastKey(path) + ": " + cmp.Or(f.like, "{key: value}") + "`, or the keys indented on the next lines"
}

// scalarExample returns the correct shape of a single value.
func scalarExample(path string, f Field) string {
	return "`" + lastKey(path) + ": " + cmp.Or(f.like, f.Default, "value") + "`"
}

// lastKey returns the last key of a path, without the index of an item.
func lastKey(path string) string {
	key, _, _ := strings.Cut(path[strings.LastIndexByte(path, '.')+1:], "[")
	return key
}
