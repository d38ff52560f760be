// Package confine has the settings that restrict the workers of an app: their environment, their
// limits, their sandbox, and when they are replaced. The daemon checks which of them its machine supports.
package confine

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/values"
)

// Environment selects the environment variables of an app's workers, or of a command.
type Environment struct {
	Pass values.Strings           `yaml:"pass" desc:"names of the daemon's variables to pass; a trailing * matches a prefix; by default all variables that this file does not read as ${NAME}, or a short list with a strict sandbox (docs/workers.md); never drover's own"`
	Set  map[string]values.Secret `yaml:"set" desc:"variables to add or override; usually ${NAME} or file:PATH"`

	// Files are the variables of environment files. They are treated like the daemon's variables, which
	// override them.
	Files map[string]problems.Variable `yaml:"-" json:"-"`
	// Withheld are the names of the variables that the configuration reads. They are passed only if
	// Pass names them, except those that every program needs.
	Withheld []string `yaml:"-"`
}

// WithFiles returns the environment of a process, as NAME=VALUE, with the variables of environment files.
func (e Environment) WithFiles(environ []string) []string {
	out := slices.Clone(environ)
	for _, name := range slices.Sorted(maps.Keys(e.Files)) {
		if !slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, name+"=") }) {
			out = append(out, name+"="+e.Files[name].Value)
		}
	}
	return out
}

// Limits are the limits of one worker, or of each of its processes.
type Limits struct {
	Memory    values.Size `yaml:"memory" default:"0B" min:"0B" max:"4096GiB" desc:"memory of a worker with its children; the kernel kills one that exceeds it; needs a cgroup; 0B is no limit"`
	CPU       float64     `yaml:"cpu" default:"0" min:"0" max:"1024" desc:"cores that a worker with its children may use, such as 0.5; needs a cgroup; 0 is all"`
	Processes int         `yaml:"processes" default:"0" min:"0" max:"1000000" desc:"maximum number of processes and threads of a worker; needs a cgroup; 0 is no limit"`

	OpenFiles    int             `yaml:"open_files" default:"0" min:"0" max:"1000000000" desc:"maximum number of open files and sockets of a process; 0 is the daemon's own limit, also for the next three keys"`
	FileSize     values.Size     `yaml:"file_size" default:"0B" min:"0B" max:"1048576GiB" desc:"maximum size of a file that a process writes"`
	AddressSpace values.Size     `yaml:"address_space" default:"0B" min:"0B" max:"1048576GiB" desc:"maximum address space of a process, used or not; you probably want memory instead"`
	CPUTime      values.Duration `yaml:"cpu_time" default:"0s" min:"0s" max:"8760h" desc:"total CPU time of a process; whole seconds"`
	Core         values.Size     `yaml:"core" default:"0B" min:"0B" max:"1048576GiB" desc:"maximum size of a core dump; 0B is none"`
}

// Sandbox has the resources that an app's workers can reach. In a file it may be one word, the
// profile.
type Sandbox struct {
	Profile     string         `yaml:"profile" alone:"off,strict" enum:"off,strict" desc:"off (default) or strict: read-only access to the app and system programs, no write access, no privileges, no dangerous system calls"`
	Read        values.Strings `yaml:"read" desc:"strict: more files and directories that may be read, relative to this file"`
	Write       values.Strings `yaml:"write" desc:"strict: files and directories that may be read and written, relative to this file"`
	Temporary   values.Size    `yaml:"temporary" default:"1GiB" min:"1MiB" max:"1048576GiB" desc:"strict: maximum size of a worker's temporary directory; a worker that exceeds it is killed"`
	Connect     values.Ports   `yaml:"connect" desc:"strict: TCP ports that workers may connect to, or any; none by default"`
	UnixSockets bool           `yaml:"unix_sockets" default:"false" desc:"strict: allow unix sockets, such as those of databases and Docker"`
	LinkLocal   bool           `yaml:"link_local" default:"false" desc:"strict: allow link-local addresses, such as a cloud's metadata service, which hands out credentials"`
}

// Recycle has the conditions for the replacement of a worker; 0 is never.
type Recycle struct {
	MaxInvocations int             `yaml:"max_invocations" default:"0" min:"0" max:"1000000000" desc:"replace after this many invocations, but not before 0.5 s and ten times the time to load the code; 0 is never"`
	MaxMemory      values.Size     `yaml:"max_memory" default:"0B" min:"0B" max:"4096GiB" desc:"replace when the worker's own memory (without cached files) exceeds this; 0B is never"`
	MaxAge         values.Duration `yaml:"max_age" default:"0s" min:"0s" max:"8760h" desc:"replace after this time; 0s is never"`
	MaxIdle        values.Duration `yaml:"max_idle" default:"0s" min:"0s" max:"8760h" desc:"replace a worker that has been idle for this long after work; 0s is never"`
}

const strict = "strict"

// Strict reports whether the sandbox is on.
func (s Sandbox) Strict() bool { return s.Profile == strict }

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

const (
	// leastFiles is the number of files that an interpreter has open while it starts.
	leastFiles = 32
	// leastMemory is the least memory of an interpreter.
	leastMemory values.Size = 16 << 20
	// temporary is the default of Sandbox.Temporary.
	temporary values.Size = 1 << 30
)

// CheckMinimums reports limits with which no worker can start.
func (l Limits) CheckMinimums(x *problems.Source, path string) {
	if n := l.OpenFiles; n > 0 && n < leastFiles {
		x.Wrong(path+".open_files", "%d is too few for a worker to start; the minimum is %d", n, leastFiles)
	}
	if n := l.Memory; n > 0 && n < leastMemory {
		x.Wrong(path+".memory", "%v is too little for a worker to start; the minimum is %v", n, leastMemory)
	}
}

// Complete checks the settings, and makes their paths absolute.
func (s *Sandbox) Complete(x *problems.Source, path string) {
	if !s.Strict() {
		for _, key := range []struct {
			name string
			set  bool
		}{
			{"read", len(s.Read) > 0}, {"write", len(s.Write) > 0}, {"temporary", s.Temporary != temporary}, {"connect", s.Connect != nil}, {"unix_sockets", s.UnixSockets}, {"link_local", s.LinkLocal},
		} {
			if key.set {
				x.Wrong(path+"."+key.name, "it requires profile: strict, but the sandbox is off")
			}
		}
		return
	}
	for _, list := range []struct {
		name  string
		paths values.Strings
	}{{"read", s.Read}, {"write", s.Write}} {
		for i, p := range list.paths {
			if p == "" {
				x.Wrong(fmt.Sprintf("%s.%s[%d]", path, list.name, i), "it is empty; name a file or a directory")
				continue
			}
			if list.paths[i] = filepath.Clean(x.Absolute(p)); list.paths[i] == "/" && list.name == "write" {
				x.Wrong(fmt.Sprintf("%s.write[%d]", path, i), "this allows writes everywhere; list only the needed directories, or turn the sandbox off")
			}
		}
	}
	if s.Connect == nil {
		s.Connect = values.Ports{} // untrusted code reaches only the listed ports
	}
	for i, port := range s.Connect {
		if s.Connect.Any() {
			break
		}
		if port < 1 || port > 65535 {
			x.Wrong(fmt.Sprintf("%s.connect[%d]", path, i), "%d is not a port; it must be a number from 1 to 65535", port)
		}
	}
}

// CheckNames reports names that no variable can have.
func (e Environment) CheckNames(x *problems.Source, path string) {
	for _, name := range slices.Sorted(maps.Keys(e.Set)) {
		if !variableName.MatchString(name) {
			x.Wrong(path+".set", "%q is not the name of a variable", name)
		}
	}
	for _, name := range e.Pass {
		if beginning := strings.TrimSuffix(name, "*"); name != "*" && !variableName.MatchString(beginning) {
			x.Wrong(path+".pass", "%q is not the name of a variable, or a prefix such as AZURE_*", name)
		}
	}
}

// String describes the limits; "" is none.
func (l Limits) String() string {
	var out []string
	add := func(set bool, format string, value any) {
		if set {
			out = append(out, fmt.Sprintf(format, value))
		}
	}
	add(l.Memory > 0, "%v of memory", l.Memory)
	add(l.CPU > 0, "%v of the processors", l.CPU)
	add(l.Processes > 0, "%d processes and threads", l.Processes)
	add(l.OpenFiles > 0, "%d open files", l.OpenFiles)
	add(l.FileSize > 0, "files of %v", l.FileSize)
	add(l.AddressSpace > 0, "%v of address space", l.AddressSpace)
	add(l.CPUTime > 0, "%v of CPU time", l.CPUTime)
	add(l.Core > 0, "core dumps of %v", l.Core)
	return strings.Join(out, ", ")
}

// String describes what the sandbox allows; "" is no sandbox.
func (s Sandbox) String() string {
	if !s.Strict() {
		return ""
	}
	out := []string{strict}
	if len(s.Read) > 0 {
		out = append(out, "reads "+strings.Join(s.Read, " and "))
	}
	if len(s.Write) > 0 {
		out = append(out, "writes "+strings.Join(s.Write, " and "))
	}
	if s.Temporary != temporary {
		out = append(out, fmt.Sprintf("has temporary files of %v", s.Temporary))
	}
	if s.Connect != nil {
		ports := "no TCP port"
		if s.Connect.Any() {
			ports = "any TCP port"
		} else if len(s.Connect) > 0 {
			ports = "TCP ports " + strings.Trim(fmt.Sprint([]int(s.Connect)), "[]")
		}
		out = append(out, "connects to "+ports)
	}
	if s.UnixSockets {
		out = append(out, "has unix sockets")
	}
	if s.LinkLocal {
		out = append(out, "reaches link-local addresses")
	}
	return strings.Join(out, ", ")
}

// String describes when a worker is replaced; "" is never.
func (r Recycle) String() string {
	var after []string
	add := func(set bool, format string, value any) {
		if set {
			after = append(after, fmt.Sprintf(format, value))
		}
	}
	add(r.MaxInvocations > 0, "after %d invocations", r.MaxInvocations)
	add(r.MaxMemory > 0, "at %v of memory of its own", r.MaxMemory)
	add(r.MaxAge > 0, "after %v", r.MaxAge)
	add(r.MaxIdle > 0, "after %v with nothing to do", r.MaxIdle)
	return strings.Join(after, ", ")
}
