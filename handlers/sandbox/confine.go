// Package sandbox confines worker processes. It limits their resources by rlimits and cgroups; their
// rights by their own user, no_new_privs, landlock and seccomp; and their environment. Each
// restriction is in force before the first line of the worker's code runs. Otherwise the worker is
// not started.
//
// A Confinement belongs to one app, and lives as long as its pool. Each worker has its own Box,
// created before the worker starts. The Box wraps the command that starts the worker (package
// launch does the rest in the new process), and is closed when the worker has ended. All methods
// are safe for concurrent use.
package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/sandbox/launch"
)

// self is this program, even if its file was replaced.
const self = "/proc/self/exe"

// Confinement confines the workers of one app.
type Confinement struct {
	settings Settings
	identity *launch.Identity
	account  account
	groups   *cgroups // nil: none are needed
	claim    *claim   // a directory that workers can reach; nil if none is needed
	boxCount atomic.Int64

	mu       sync.Mutex
	needed   []string
	readable []string

	serving   sync.WaitGroup
	listeners map[*os.File]struct{} // of the system calls that the daemon makes for workers; guarded by mu

	temporary map[string]bool // the directories of running workers; guarded by mu
	deleted   deleted
}

// Check checks whether this machine supports the settings. The error names, for each unsupported
// setting, the reason and how to fix it.
func Check(s Settings) error {
	_, _, err := s.checkSupport(ownCgroups())
	return err
}

// New checks the settings and creates the workers' shared cgroup and directory. It
// removes those left by killed daemons.
func New(s Settings) (*Confinement, error) {
	return openConfinement(s, ownCgroups())
}

func openConfinement(s Settings, where *membership) (c *Confinement, err error) {
	identity, who, err := s.checkSupport(where)
	if err != nil {
		return nil, err
	}
	var files unix.Rlimit
	if s.Strict && s.Limits.FileSize == 0 && s.Temporary > 0 && len(s.Write) == 0 && unix.Getrlimit(unix.RLIMIT_FSIZE, &files) == nil {
		s.Limits.FileSize = int64(min(uint64(s.Temporary), uint64(files.Max))) //nolint:unconvert // it is signed on some systems
	}
	c = &Confinement{settings: s, identity: identity, account: who, listeners: make(map[*os.File]struct{}), temporary: make(map[string]bool)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
			c = nil
		}
	}()
	if need := s.Limits.neededControllers(); len(need) > 0 {
		if c.groups, err = openCgroups(where, need); err != nil {
			return c, err
		}
	}
	if s.Strict || s.User != "" {
		if c.claim, err = claimTemporary(); err != nil {
			return c, err
		}
		if err = os.Mkdir(c.filesDir(), 0o700); err == nil {
			err = os.Chmod(c.filesDir(), 0o755) //nolint:gosec // another user reads its files
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *Confinement) filesDir() string { return filepath.Join(c.claim.dir, "files") }

// FilesDir returns the directory for the files that workers need: their user can read it. Close
// removes it if it is not the data directory.
func (c *Confinement) FilesDir() string {
	if c.settings.User != "" {
		return c.filesDir()
	}
	return c.settings.DataDir
}

// AddNeeded adds paths that workers must be able to read: their own files, and those of their
// interpreter. If a worker cannot read them, it is not started.
func (c *Confinement) AddNeeded(paths ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.needed = append(c.needed, paths...)
}

// AddReadable adds paths that workers may read if their user has access.
func (c *Confinement) AddReadable(paths ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readable = append(c.readable, paths...)
}

// FilterEnviron returns the part of an environment that a process without a sandbox gets. It never
// includes drover's own variables.
func (e Environment) FilterEnviron(given []string) []string {
	return e.selectFrom(given, false, account{})
}

// FilterEnviron returns the part of an environment that workers get, each variable as NAME=VALUE.
func (c *Confinement) FilterEnviron(given []string) []string {
	return c.settings.Environment.selectFrom(given, c.settings.Strict, c.account)
}

// TryLaunch performs all steps of confining a worker in a process that ends before it runs a
// command. The error names the step that failed.
func (c *Confinement) TryLaunch(ctx context.Context) error {
	box, err := c.NewBox()
	if err != nil {
		return err
	}
	if err = box.tryLaunch(ctx); err != nil {
		err = fmt.Errorf("its workers cannot be held to what they should: %w", err)
	}
	return errors.Join(err, box.Close())
}

func (b *Box) tryLaunch(ctx context.Context) error {
	if b.ours == nil {
		return nil
	}
	program, name, args := b.WrapCommand(3, "", nil)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Args[0], cmd.Env, cmd.ExtraFiles = name, []string{}, []*os.File{b.ChildSocket()}
	out, err := cmd.CombinedOutput()
	why := b.LaunchError()
	if ctx.Err() != nil && (err != nil || why != nil) {
		return fmt.Errorf("the check did not end: %w", context.Cause(ctx))
	}
	if why != nil {
		if errors.Is(why, launch.ErrNoReport) {
			return fmt.Errorf("%w (%w) %.200s", why, err, out)
		}
		return why
	}
	return err
}

// Close removes them. The caller has stopped the workers.
func (c *Confinement) Close() error {
	c.mu.Lock()
	for listener := range c.listeners {
		_ = listener.Close()
	}
	c.mu.Unlock()
	c.serving.Wait()
	var errs []error
	if c.groups != nil {
		errs = append(errs, c.groups.close())
	}
	if c.claim != nil {
		errs = append(errs, c.claim.release(os.RemoveAll))
	}
	return errors.Join(errs...)
}

// launchSpec returns the steps of the launch stage for a worker.
func (c *Confinement) launchSpec(tmp string, groups []string) launch.Spec {
	s := c.settings
	spec := launch.Spec{
		Cgroups: groups, Rlimits: s.Limits.rlimits(), Identity: c.identity,
		NoNewPrivs: !s.NewPrivileges, Unprivileged: s.Strict,
	}
	c.mu.Lock()
	needed := append([]string{s.Dir}, c.needed...)
	readable := slices.Concat(needed, c.readable)
	c.mu.Unlock()
	if s.User != "" || s.Strict {
		spec.Reachable = needed
	}
	if s.Strict {
		spec.Files = &launch.Files{
			Read:  slices.Concat(readable, systemFiles(), s.Read),
			Write: slices.Concat([]string{tmp}, systemDevices, s.Write),
		}
		switch {
		case !s.LinkLocal && launch.LandlockABI() >= launch.ConnectABI:
			spec.Files.Connect = []uint16{} // the daemon makes the connections
		case s.Connect != nil:
			spec.Files.Connect = make([]uint16, len(s.Connect))
			for i, port := range s.Connect {
				spec.Files.Connect[i] = uint16(port)
			}
		}
		spec.Calls = &launch.SystemCall{UnixSockets: s.UnixSockets, Addresses: !s.LinkLocal}
	}
	return spec
}

// cpuGrace is the time between the soft and the hard limit of CPU time, in seconds, in which a
// process can end by itself.
const cpuGrace = 5

// ErrNoReport is the verdict on a process that ended before it ran its command without reporting a
// reason. Usually it was killed.
var ErrNoReport = launch.ErrNoReport

// Box is the confinement of one worker.
type Box struct {
	confinement     *Confinement
	groups          []string // its cgroup directories
	tmp             string   // empty: none
	ours            *os.File // the daemon's end of the socket; nil: there is no launch stage
	theirs          *os.File
	listenerSettled chan struct{} // closed when the listener has arrived, or will not; nil: there is none
	firstBytes      []byte        // bytes received instead of the listener
}

// NewBox returns a new Box, for a worker that is about to be started.
func (c *Confinement) NewBox() (b *Box, err error) {
	b = &Box{confinement: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
			b = nil
		}
	}()
	name := "worker-" + strconv.FormatInt(c.boxCount.Add(1), 10)
	var join []string
	if c.groups != nil {
		if b.groups, join, err = c.groups.makeGroups(name, c.settings.Limits); err != nil {
			return b, err
		}
	}
	if c.settings.Strict {
		b.tmp = c.temporaryIn(c.claim.dir, name)
		if err = os.Mkdir(b.tmp, 0o700); err == nil && c.identity != nil {
			err = os.Chown(b.tmp, c.identity.UID, c.identity.GID)
		}
		if err != nil {
			return b, fmt.Errorf("making a worker's temporary directory: %w", err)
		}
	}
	if runtime.GOOS != "linux" {
		return b, nil
	}
	if b.ours, b.theirs, err = socketpair(); err != nil {
		return b, err
	}
	spec := c.launchSpec(b.tmp, join)
	if spec.Calls != nil && spec.Calls.Addresses {
		b.listenerSettled = make(chan struct{})
		c.serving.Go(b.serveCalls)
	}
	return b, launch.SendSpec(b.ours, spec)
}

// ForkBox returns the Box of a worker that is forked from a template. The worker inherits everything
// but the cgroup, which JoinCgroup sets, and the temporary directory, which it creates itself.
func (c *Confinement) ForkBox(template *Box) *Box {
	b := &Box{confinement: c}
	if template.tmp != "" {
		b.tmp = c.temporaryIn(template.tmp, "worker-"+strconv.FormatInt(c.boxCount.Add(1), 10))
	}
	return b
}

// temporaryIn reserves a path for a worker's temporary directory.
func (c *Confinement) temporaryIn(dir, name string) string {
	path := filepath.Join(dir, name)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.temporary[path] = true
	return path
}

// JoinCgroup moves a process into its cgroup.
func (b *Box) JoinCgroup(pid int) (err error) {
	c := b.confinement
	if c.groups == nil {
		return nil
	}
	var join []string
	b.groups, join, err = c.groups.makeGroups("worker-"+strconv.FormatInt(c.boxCount.Add(1), 10), c.settings.Limits)
	for _, file := range join {
		if err == nil {
			err = os.WriteFile(file, []byte(strconv.Itoa(pid)), 0)
		}
	}
	if err != nil {
		return fmt.Errorf("putting process %d into its cgroup: %w", pid, err)
	}
	return nil
}

// WrapCommand returns the program to start instead of a command, its name (argv[0]), and its
// arguments. fd is the file descriptor of ChildSocket in the new process.
func (b *Box) WrapCommand(fd int, path string, args []string) (program, name string, wrapped []string) {
	if b.theirs == nil {
		return path, path, args
	}
	return self, launch.Name, launch.StageArgs(fd, path, args)
}

// ChildSocket returns the socket that the new process must inherit; nil if WrapCommand changes
// nothing. The Box owns and closes it.
func (b *Box) ChildSocket() *os.File { return b.theirs }

// AddTemporary returns a worker's environment with TMPDIR set to its temporary directory, if it has one.
func (b *Box) AddTemporary(given []string) []string {
	if b.tmp == "" {
		return given
	}
	given = slices.DeleteFunc(slices.Clone(given), hasName("TMPDIR"))
	return append(given, "TMPDIR="+b.tmp)
}

// verdictLimit bounds the wait for the end of the launch stage's output, in case another process
// has inherited its socket.
const verdictLimit = time.Second

// LaunchError returns why the command never ran; nil if it did. It is called when the process has
// ended.
func (b *Box) LaunchError() error {
	if b.ours == nil {
		return nil
	}
	_ = b.theirs.Close() // so that the end of the other side is detected
	_ = b.ours.SetReadDeadline(time.Now().Add(verdictLimit))
	if b.listenerSettled != nil {
		<-b.listenerSettled
	}
	return launch.ReadVerdict(io.MultiReader(bytes.NewReader(b.firstBytes), b.ours))
}

// MemoryLimit returns the memory limit of a worker with its children, in bytes; 0 if there is none.
func (c *Confinement) MemoryLimit() int64 { return c.settings.Limits.Memory }

// OutOfMemory reports whether the kernel killed a process of the worker at its memory limit. It
// is called before Close.
func (b *Box) OutOfMemory() bool {
	return slices.ContainsFunc(b.groups, oomKilled)
}

// Close removes the worker's own directories. It kills the remaining processes in its cgroup.
func (b *Box) Close() error {
	var errs []error
	for _, file := range []*os.File{b.ours, b.theirs} {
		if file != nil {
			_ = file.Close() // LaunchError may have done it
		}
	}
	for _, dir := range b.groups {
		errs = append(errs, removeCgroup(dir))
	}
	if b.tmp != "" {
		errs = append(errs, b.confinement.removeTemporary(b.tmp))
	}
	return errors.Join(errs...)
}
