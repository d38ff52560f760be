package values

import (
	"fmt"
	"regexp"
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

var headerForm = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`)

// ValidHeader reports whether a header can be sent: its value is one line.
func ValidHeader(name string, value Secret) bool {
	return headerForm.MatchString(name) && !strings.ContainsAny(string(value), "\r\n\x00")
}
