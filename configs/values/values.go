// Package values has the types of values that many parts of a configuration use, such as 30s, 1MiB
// or ${NAME}: reads them, and prints them in a form that reads back the same. Secrets are never
// printed.
package values

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written as 1m30s.
type Duration time.Duration

// Size is a number of bytes written as 512KiB or 1MiB (or kB, MB: powers of 1000).
type Size int64

// Secret is a text that is never printed: its String and its JSON are ***.
type Secret string

// Strings is a list, or a single text.
type Strings []string

// EnvFiles is a list of files of environment variables, or a single one.
type EnvFiles []string

// Ports is a list of TCP ports. AnyPort in it allows all of them.
type Ports []int

// AnyPort represents the word any in a list of ports.
const AnyPort = -1

// Any reports whether all ports are allowed.
func (p Ports) Any() bool { return slices.Contains(p, AnyPort) }

// TLS has the settings of encryption. All are PEM texts, usually file:PATH.
type TLS struct {
	CA         string `yaml:"ca" desc:"root certificates to verify the server's certificate"`
	Cert       string `yaml:"cert" desc:"the client's certificate"`
	Key        Secret `yaml:"key" desc:"the client's key"`
	ServerName string `yaml:"server_name" desc:"name that the server's certificate must have; by default the URL's host"`
}

// Prefetch is a number, or auto, represented by -1.
type Prefetch int

// PrefetchAuto follows the measured rate.
const PrefetchAuto Prefetch = -1

// D returns the duration as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String returns the shortest form that reads back the same: 5m, not 5m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// ParseDuration parses 1m30s. The error has an example.
func ParseDuration(text string) (Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write 500ms, 30s or 1h30m, for example", text)
	}
	return Duration(d), nil
}

var units = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
}

// String returns the size in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && int64(s)%u.bytes == 0 {
			return fmt.Sprintf("%d%s", int64(s)/u.bytes, u.name)
		}
	}
	return "0B"
}

var sizeForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)$`)

// ParseSize parses 512KiB. The error has an example.
func ParseSize(text string) (Size, error) {
	m := sizeForm.FindStringSubmatch(text)
	if m != nil {
		for _, u := range units {
			if u.name == m[2] {
				n, err := strconv.ParseFloat(m[1], 64)
				if err == nil && n*float64(u.bytes) <= math.MaxInt64/2 {
					return Size(n * float64(u.bytes)), nil
				}
			}
		}
	}
	return 0, fmt.Errorf("%q is not a size; write 512KiB, 1MiB or 100kB, for example", text)
}

// Spare is the number of spare workers of an app, 0 or 1, or SpareAuto.
type Spare int

// SpareAuto has one if memory allows it.
const SpareAuto Spare = -1

// String returns auto, or the number.
func (s Spare) String() string {
	if s == SpareAuto {
		return "auto"
	}
	return strconv.Itoa(int(s))
}

// ParseSpare parses auto, 0 or 1.
func ParseSpare(text string) (Spare, error) {
	switch text {
	case "auto":
		return SpareAuto, nil
	case "0":
		return 0, nil
	case "1":
		return 1, nil
	}
	return 0, fmt.Errorf("%q is not a number of spare workers; write auto, 0 or 1", text)
}

// String returns auto, or the number.
func (p Prefetch) String() string {
	if p == PrefetchAuto {
		return "auto"
	}
	return strconv.Itoa(int(p))
}

// ParsePrefetch parses auto, or a number up to 1,000,000.
func ParsePrefetch(text string) (Prefetch, error) {
	if text == "auto" {
		return PrefetchAuto, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1_000_000 {
		return 0, fmt.Errorf("%q is not a prefetch; write auto, or a number from 0 to 1000000", text)
	}
	return Prefetch(n), nil
}

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString hides the secret.
func (s Secret) GoString() string { return s.String() }

// MarshalJSON hides the secret.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalYAML hides the secret.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// Env looks up an environment variable, as os.LookupEnv does.
type Env func(name string) (value string, found bool)

var reference = regexp.MustCompile(`\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:-)([^}]*))?\}|\$`)

// Expand inserts values of the environment: ${NAME}, ${NAME:-default}, and $$ for a dollar.
// Inserted values are not expanded again.
func Expand(text string, env Env) (string, error) {
	if !strings.Contains(text, "$") {
		return text, nil
	}
	var wrong []error
	out := reference.ReplaceAllStringFunc(text, func(ref string) string {
		if ref == "$$" {
			return "$"
		}
		m := reference.FindStringSubmatch(ref)
		if m[1] == "" {
			wrong = append(wrong, errors.New("a $ without a name; write ${NAME}, ${NAME:-default}, or $$ for a dollar"))
			return ref
		}
		value, found := env(m[1])
		if m[2] != "" && value == "" {
			return m[3]
		}
		if !found {
			wrong = append(wrong, fmt.Errorf("the environment variable %s is not set; set it, or write ${%s:-default}", m[1], m[1]))
		}
		return value
	})
	return out, errors.Join(wrong...)
}
