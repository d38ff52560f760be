package routes

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// constraint is a condition on the value of a parameter.
type constraint struct {
	text  string // identifies it
	holds func(value string) bool
}

// plainConstraints are those without arguments.
var plainConstraints = map[string]func(string) bool{
	"int":      func(v string) bool { return isInteger(v, 32) },
	"long":     func(v string) bool { return isInteger(v, 64) },
	"float":    func(v string) bool { return isNumber(v, 32) },
	"double":   func(v string) bool { return isNumber(v, 64) },
	"decimal":  func(v string) bool { return isNumber(v, 64) },
	"bool":     func(v string) bool { return strings.EqualFold(v, "true") || strings.EqualFold(v, "false") },
	"guid":     guidForm.MatchString,
	"alpha":    alphaForm.MatchString,
	"datetime": isTime,
	"required": func(v string) bool { return v != "" },
}

var (
	guidForm  = regexp.MustCompile(`^(?i)(\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}|\([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\)|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})$`)
	alphaForm = regexp.MustCompile(`^[A-Za-z]*$`)
)

func isInteger(v string, bits int) bool {
	_, err := strconv.ParseInt(v, 10, bits)
	return err == nil
}

func isNumber(v string, bits int) bool {
	_, err := strconv.ParseFloat(v, bits)
	return err == nil
}

func isTime(v string) bool {
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04", "2006-01-02T15:04:05", time.DateTime, time.RFC3339Nano} {
		if _, err := time.Parse(layout, v); err == nil {
			return true
		}
	}
	return false
}

// numericConstraints are those with numbers as arguments, and how many they take.
var numericConstraints = map[string]struct {
	least, most int
	holds       func(value string, n []int64) bool
}{
	"min":       {1, 1, func(v string, n []int64) bool { return between(v, n[0], 1<<63-1) }},
	"max":       {1, 1, func(v string, n []int64) bool { return between(v, -1<<63, n[0]) }},
	"range":     {2, 2, func(v string, n []int64) bool { return between(v, n[0], n[1]) }},
	"minlength": {1, 1, func(v string, n []int64) bool { return int64(utf8.RuneCountInString(v)) >= n[0] }},
	"maxlength": {1, 1, func(v string, n []int64) bool { return int64(utf8.RuneCountInString(v)) <= n[0] }},
	"length": {1, 2, func(v string, n []int64) bool {
		long := int64(utf8.RuneCountInString(v))
		return n[0] <= long && long <= n[len(n)-1]
	}},
}

func between(v string, low, high int64) bool {
	n, err := strconv.ParseInt(v, 10, 64)
	return err == nil && low <= n && n <= high
}

// newConstraint returns a constraint by its name; arguments is nil if none are given.
func newConstraint(name string, arguments []string) (constraint, error) {
	text := name
	if arguments != nil {
		text += "(" + strings.Join(arguments, ",") + ")"
	}
	if holds, found := plainConstraints[name]; found {
		if arguments != nil {
			return constraint{}, fmt.Errorf("the constraint %s takes no arguments", name)
		}
		return constraint{text, holds}, nil
	}
	if name == "regex" {
		if arguments == nil {
			return constraint{}, fmt.Errorf(`the constraint regex needs an expression, such as regex(^\\d+$)`)
		}
		form, err := regexp.Compile("(?i)" + arguments[0])
		if err != nil {
			return constraint{}, fmt.Errorf("the constraint %s: %w", text, err)
		}
		return constraint{text, form.MatchString}, nil
	}
	of, found := numericConstraints[name]
	if !found {
		known := slices.Concat(slices.Collect(maps.Keys(plainConstraints)), slices.Collect(maps.Keys(numericConstraints)), []string{"regex"})
		slices.Sort(known)
		return constraint{}, fmt.Errorf("there is no constraint %q; there are %s", name, strings.Join(known, ", "))
	}
	if len(arguments) < of.least || len(arguments) > of.most {
		return constraint{}, fmt.Errorf("the constraint %s has %d arguments; it takes %d", name, len(arguments), of.most)
	}
	numbers := make([]int64, len(arguments))
	for i, a := range arguments {
		n, err := strconv.ParseInt(a, 10, 64)
		if err != nil {
			return constraint{}, fmt.Errorf("the constraint %s: %q is not a whole number", text, a)
		}
		numbers[i] = n
	}
	return constraint{text, func(v string) bool { return of.holds(v, numbers) }}, nil
}
