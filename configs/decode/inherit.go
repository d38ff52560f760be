package decode

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/goccy/go-yaml/ast"
)

// This file fills the entries of a map with defaults from a sibling key, which the tag from names.

// inOrder returns the entries of a mapping: those with the tag first, then those with defaults for
// others, then the rest.
func inOrder(pairs []*ast.MappingValueNode, fields []Field) []*ast.MappingValueNode {
	rank := func(pair *ast.MappingValueNode) int {
		key := pair.Key.GetToken().Value
		switch {
		case slices.ContainsFunc(fields, func(f Field) bool { return f.Name == key && f.first }):
			return 0
		case slices.ContainsFunc(fields, func(f Field) bool { return f.from == key }):
			return 1
		}
		return 2
	}
	return slices.SortedStableFunc(slices.Values(pairs), func(a, b *ast.MappingValueNode) int { return cmp.Compare(rank(a), rank(b)) })
}

// siblingOf returns the value of the field with the defaults of another field; the zero Value if there
// is none.
func siblingOf(v reflect.Value, fields []Field, of Field) reflect.Value {
	i := slices.IndexFunc(fields, func(f Field) bool { return of.from != "" && f.Name == of.from })
	if i < 0 {
		return reflect.Value{}
	}
	return v.Field(fields[i].Index)
}

// inherit copies to an entry the values that the file sets in its template, which has some of the entry's
// keys. from and to are their paths.
func (d *decoder) inherit(entry, template reflect.Value, from, to string) {
	for _, f := range Fields(template.Type()) {
		path, field := joinPath(from, f.Name), fieldByKey(entry, f.Name)
		switch value := template.Field(f.Index); {
		case !d.Given(path):
		case value.Kind() == reflect.Struct:
			d.inherit(field, value, path, joinPath(to, f.Name))
		default:
			field.Set(value)
			d.Inherited[joinPath(to, f.Name)] = path
		}
	}
}

// fieldByKey returns the field of a struct with a key.
func fieldByKey(v reflect.Value, key string) reflect.Value {
	for _, f := range Fields(v.Type()) {
		if f.Name == key {
			return v.Field(f.Index)
		}
	}
	panic(v.Type().String() + " has no key " + key + ", which has a default")
}

// inheritRest does the same for entries of maps that are not in the file.
func (d *decoder) inheritRest(v reflect.Value, fields []Field, path string) {
	for _, f := range fields {
		template := siblingOf(v, fields, f)
		if !template.IsValid() {
			continue
		}
		of := v.Field(f.Index)
		for _, key := range of.MapKeys() {
			at := joinPath(joinPath(path, f.Name), key.String())
			if d.Given(at) {
				continue
			}
			entry := reflect.New(of.Type().Elem()).Elem()
			entry.Set(of.MapIndex(key))
			d.inherit(entry, template, f.from, at)
			of.SetMapIndex(key, entry)
		}
	}
}

// Inherit replaces the zero values of an entry by the values of a template, which has some of the entry's
// keys. It is for a configuration that a program made. Both are pointers to structs.
func Inherit(entry, template any) {
	inheritZero(reflect.ValueOf(entry).Elem(), reflect.ValueOf(template).Elem())
}

func inheritZero(entry, template reflect.Value) {
	for _, f := range Fields(template.Type()) {
		to, from := fieldByKey(entry, f.Name), template.Field(f.Index)
		if from.Kind() == reflect.Struct {
			inheritZero(to, from)
		} else if to.IsZero() {
			to.Set(from)
		}
	}
}
