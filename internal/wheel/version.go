package wheel

import (
	"cmp"
	"regexp"
	"strings"
)

var (
	pseudoVersion = regexp.MustCompile(`^v(\d+\.\d+\.\d+)-(?:(?:[0-9A-Za-z.]+\.)?0\.)?(\d{14})-([0-9a-f]{12})$`)
	goVersion     = regexp.MustCompile(`^v?(\d+(?:\.\d+){1,2})(?:-(alpha|beta|rc)\.?(\d*))?$`)
	release       = map[string]string{"alpha": "a", "beta": "b", "rc": "rc"}
)

// Version converts a Go version, such as the output of `drover version`, to the version of a Python
// distribution (PEP 440): v1.2.0 becomes 1.2.0, v1.3.0-rc.1 becomes 1.3.0rc1, and the version of a commit
// becomes a development version, such as 0.0.0.dev20261201094006+b84e554abcde. Any other version, such as
// (devel), becomes 0.0.0.dev0. A build with uncommitted changes has the local part dirty.
func Version(built string) string {
	name, metadata, _ := strings.Cut(built, "+")
	var local []string
	out := "0.0.0.dev0"
	if m := pseudoVersion.FindStringSubmatch(name); m != nil {
		out, local = m[1]+".dev"+m[2], append(local, m[3])
	} else if m := goVersion.FindStringSubmatch(name); m != nil {
		out = m[1]
		if m[2] != "" {
			out += release[m[2]] + cmp.Or(m[3], "0")
		}
	}
	if metadata == "dirty" || strings.HasSuffix(metadata, ".dirty") {
		local = append(local, "dirty")
	}
	if len(local) > 0 {
		out += "+" + strings.Join(local, ".")
	}
	return out
}
