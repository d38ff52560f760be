package decode

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-run/drover/configs/values"
)

// Field is a key of a struct.
type Field struct {
	Name, Default string
	Zero          string // a word that represents 0
	Index         int    // the field's in the struct

	enum, min, max   string
	required, single bool
	from             string // the sibling key with the defaults of a map's entries
	first            bool   // it is read before its siblings
	like             string // an example of the value

	template reflect.Value // of the entries of a map, while it is read
}

// Fields returns the keys of a struct.
func Fields(t reflect.Type) (out []Field) {
	for i := range t.NumField() {
		if f := fieldOf(t.Field(i), i); f.Name != "" && f.Name != "-" {
			out = append(out, f)
		}
	}
	return out
}

func fieldOf(of reflect.StructField, index int) Field {
	tag := of.Tag
	return Field{
		Name: tag.Get("yaml"), Default: tag.Get("default"), Zero: tag.Get("zero"), Index: index,
		enum: tag.Get("enum"), min: tag.Get("min"), max: tag.Get("max"),
		required: tag.Get("required") == "true", single: tag.Get("single") == "true",
		from: tag.Get("from"), first: tag.Get("first") == "true", like: tag.Get("like"),
	}
}

func keyNames(t reflect.Type) (out []string) {
	for _, f := range Fields(t) {
		out = append(out, f.Name)
	}
	return out
}

// aloneField returns the index of the field with the tag alone, and the words in it; negative if
// there is none.
func aloneField(t reflect.Type) (index int, words []string) {
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("alone"); tag != "" {
			return i, strings.Split(tag, ",")
		}
	}
	return -1, nil
}

// Defaults sets the zero fields with a tag `default` of a struct, and of the structs in it. of
// points to the struct.
func Defaults(of any) { setDefaults(reflect.ValueOf(of).Elem()) }

func setDefaults(v reflect.Value) {
	if v.Kind() != reflect.Struct {
		return
	}
	for _, f := range Fields(v.Type()) {
		inner := v.Field(f.Index)
		if inner.Kind() == reflect.Struct {
			setDefaults(inner)
			continue
		}
		if f.Default != "" && inner.IsZero() {
			if err := setScalar(inner, f.Default); err != nil {
				panic("a default in a tag is wrong: " + err.Error())
			}
		}
	}
}

// setScalar converts a text to the value's type, and sets it.
func setScalar(v reflect.Value, text string) error {
	var out any
	var err error
	switch v.Interface().(type) {
	case values.Duration:
		out, err = values.ParseDuration(text)
	case values.Size:
		out, err = values.ParseSize(text)
	case values.Spare:
		out, err = values.ParseSpare(text)
	case values.Prefetch:
		out, err = values.ParsePrefetch(text)
	default:
		switch v.Kind() {
		case reflect.String:
			v.SetString(text)
			return nil
		case reflect.Bool:
			if text != "true" && text != "false" {
				return fmt.Errorf("%q is neither true nor false", text)
			}
			out = text == "true"
		case reflect.Int:
			if out, err = strconv.Atoi(text); err != nil {
				return fmt.Errorf("%q is not a whole number", text)
			}
		case reflect.Float64:
			number, parseErr := strconv.ParseFloat(text, 64)
			if parseErr != nil || math.IsNaN(number) || math.IsInf(number, 0) {
				return fmt.Errorf("%q is not a number", text)
			}
			out = number
		default:
			panic("a configuration type that the decoder does not know: " + v.Type().String())
		}
	}
	if err != nil {
		return err
	}
	v.Set(reflect.ValueOf(out))
	return nil
}

// inBounds checks a value against its field's enum, min and max.
func inBounds(v reflect.Value, f Field) error {
	if f.enum != "" {
		words := strings.Split(f.enum, ",")
		if text := fmt.Sprint(v.Interface()); !slices.Contains(words, text) {
			return fmt.Errorf("is %s; allowed: %s", text, strings.Join(words, ", "))
		}
	}
	for _, bound := range []struct {
		text, word string
		sign       float64
	}{{f.min, "minimum", 1}, {f.max, "maximum", -1}} {
		if bound.text == "" {
			continue
		}
		limit := reflect.New(v.Type()).Elem()
		if err := setScalar(limit, bound.text); err != nil {
			panic("a bound in a tag is wrong: " + err.Error())
		}
		if (asNumber(v)-asNumber(limit))*bound.sign < 0 {
			return fmt.Errorf("is %v; the %s is %s", v.Interface(), bound.word, bound.text)
		}
	}
	return nil
}

func asNumber(v reflect.Value) float64 {
	if v.CanInt() {
		return float64(v.Int())
	}
	return v.Float()
}
