package customhandler

import (
	"regexp"
	"slices"
	"strings"
)

// setVariables returns an environment with variables set.
func setVariables(environ []string, variables map[string]string) []string {
	out := slices.DeleteFunc(slices.Clone(environ), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		_, replaced := variables[name]
		return replaced
	})
	names := make([]string, 0, len(variables))
	for name := range variables {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		out = append(out, name+"="+variables[name])
	}
	return out
}

var reference = regexp.MustCompile(`%([^%\s]+)%`)

// ExpandVariables replaces each %NAME% in a text by a variable of an environment. A variable that is
// not set is left out, and returned in unset.
func ExpandVariables(text string, environ []string) (out string, unset []string) {
	out = reference.ReplaceAllStringFunc(text, func(whole string) string {
		name := strings.Trim(whole, "%")
		for i := len(environ) - 1; i >= 0; i-- { // the last one counts
			if value, found := strings.CutPrefix(environ[i], name+"="); found {
				return value
			}
		}
		unset = append(unset, name)
		return ""
	})
	return out, unset
}

// expandArguments returns the arguments of the program. Like the host, it expands the arguments,
// joins them with spaces, and splits them again: so one argument in host.json may become several,
// and one with a space needs quotes.
func expandArguments(arguments, environ []string) (out, unset []string) {
	expanded := make([]string, 0, len(arguments))
	for _, argument := range arguments {
		text, missing := ExpandVariables(argument, environ)
		expanded, unset = append(expanded, text), append(unset, missing...)
	}
	return splitArguments(strings.Join(expanded, " ")), unset
}

// splitArguments splits a command line as .NET does: at blanks and tabs outside of double quotes. A
// backslash escapes a quote, and is an ordinary character elsewhere. Two quotes inside of quotes are
// one.
func splitArguments(line string) (out []string) {
	var current strings.Builder
	inside, quoted := false, false // an argument; quotes
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\':
			n := 0
			for i < len(line) && line[i] == '\\' {
				i, n = i+1, n+1
			}
			inside = true
			if i < len(line) && line[i] == '"' { // two backslashes before a quote are one
				current.WriteString(strings.Repeat(`\`, n/2))
				if n%2 == 1 {
					current.WriteByte('"')
				} else {
					i-- // the quote is an ordinary one
				}
				continue
			}
			current.WriteString(strings.Repeat(`\`, n))
			i--
		case c == '"' && quoted && i+1 < len(line) && line[i+1] == '"':
			current.WriteByte('"')
			i++
		case c == '"':
			inside, quoted = true, !quoted
		case (c == ' ' || c == '\t') && !quoted:
			if inside {
				out = append(out, current.String())
			}
			current.Reset()
			inside = false
		default:
			inside = true
			current.WriteByte(c)
		}
	}
	if inside {
		out = append(out, current.String())
	}
	return out
}
