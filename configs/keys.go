package configs

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs/problems"
)

// sortedNames returns the keys of a map in order.
func sortedNames[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

// kind is one of several keys, of which exactly one must be set.
type kind struct {
	key   string
	given bool
}

// pointedKinds returns the kinds of a struct with a pointer for each.
func pointedKinds(of any) (kinds []kind) {
	v := reflect.ValueOf(of)
	for i := range v.NumField() {
		kinds = append(kinds, kind{v.Type().Field(i).Tag.Get("yaml"), !v.Field(i).IsNil()})
	}
	return kinds
}

// copyKinds replaces the targets of a struct's pointers by copies, which can be completed, and
// returns the copies.
func copyKinds(of any) (copies []any) {
	v := reflect.ValueOf(of).Elem()
	for i := range v.NumField() {
		if p := v.Field(i); p.Kind() == reflect.Pointer && !p.IsNil() {
			own := reflect.New(p.Type().Elem())
			own.Elem().Set(p.Elem())
			p.Set(own)
			copies = append(copies, own.Interface())
		}
	}
	return copies
}

// oneKind reports a problem unless exactly one of the keys is set.
func oneKind(x *problems.Source, path, what string, kinds []kind) bool {
	var known, given []string
	for _, k := range kinds {
		known = append(known, k.key)
		if k.given {
			given = append(given, k.key)
		}
	}
	switch len(given) {
	case 0:
		x.Wrong(path, "it needs exactly one kind: %s", strings.Join(known, ", "))
	case 1:
		return true
	default:
		x.Wrong(path, "it has both %s; %s exactly one kind", strings.Join(given, " and "), what)
	}
	return false
}

// onlyFor reports keys that are for another kind.
func onlyFor(x *problems.Source, path, kind string, keys []string) {
	for _, key := range keys {
		if at, given := x.Where[path+"."+key]; given {
			x.Report(at, "%s.%s: this key is only for %s; remove it", path, key, kind)
		}
	}
}
