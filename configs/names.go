package configs

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName bounds the name of a function, an app or a connection, in bytes. Names become
// parts of file names, metric labels and NATS consumers.
const maxName = 100

// CheckName returns an error if a name is not valid for a function, an app or a connection.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the name is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name %.40q... has %d bytes; a name has at most %d", name, len(name), maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("the name %+q is not UTF-8", name)
	case strings.ContainsAny(name, `./\`):
		return fmt.Errorf(`the name %+q has a dot or a slash; use - or _ instead`, name)
	case name[0] == '-':
		return fmt.Errorf("the name %+q begins with -, like a flag; begin with a letter", name)
	}
	for _, r := range name {
		// Cf has characters that change the direction of text, and invisible ones.
		if unicode.IsSpace(r) || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp) || !unicode.IsPrint(r) {
			return fmt.Errorf("the name %+q has %U, a space, control or invisible character; remove it", name, r)
		}
	}
	return nil
}

// checkNames checks the names in the configuration.
func (x *completion) checkNames() {
	for _, of := range []struct {
		key   string
		names []string
	}{{"connections", names(x.Connections)}, {"apps", names(x.Apps)}, {"functions", names(x.Functions)}} {
		for _, name := range of.names {
			if err := CheckName(name); err != nil {
				x.Report(x.At(of.key+"."+name), "%s: %v", of.key, err)
			}
		}
	}
}
