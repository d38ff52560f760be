package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/drover-run/drover/handlers/sandbox/launch"
)

// checkSupport returns the identity of the workers, and an error for settings that are not possible
// here.
func (s Settings) checkSupport(where *membership) (*launch.Identity, account, error) {
	if runtime.GOOS != "linux" {
		return nil, account{}, s.requireLinux()
	}
	identity, who, err := s.findIdentity()
	errs := []error{err}
	for _, l := range s.Limits.rlimits() {
		errs = append(errs, checkRlimit(l))
	}
	for _, need := range s.Limits.neededControllers() {
		if _, err := where.findController(need.controller); err != nil {
			errs = append(errs, fmt.Errorf("limits.%s: %w; %s, or leave it out", need.key, err, delegateAdvice))
		}
	}
	if s.Strict {
		errs = append(errs, s.checkStrict())
	}
	return identity, who, errors.Join(errs...)
}

// requireLinux returns an error for settings that exist only on Linux.
func (s Settings) requireLinux() error {
	var given []string
	for _, setting := range []struct {
		key string
		set bool
	}{
		{"limits", s.Limits != Limits{}}, {"user", s.User != ""}, {"group", s.Group != ""}, {"sandbox", s.Strict},
	} {
		if setting.set {
			given = append(given, setting.key)
		}
	}
	if len(given) == 0 {
		return nil
	}
	return fmt.Errorf("%s: this needs Linux, and this is %s; leave it out", strings.Join(given, ", "), runtime.GOOS)
}

// findIdentity looks up the user and the group.
func (s Settings) findIdentity() (*launch.Identity, account, error) {
	if s.User == "" && s.Group == "" {
		return nil, account{}, nil
	}
	key := "user"
	if s.User == "" {
		key = "group"
	}
	if !launch.MayChangeIdentity() {
		return nil, account{}, fmt.Errorf("%s: only root may run workers as another; run drover as root, or leave it out", key)
	}
	id := &launch.Identity{UID: os.Getuid(), GID: os.Getgid()}
	var who account
	if s.User != "" {
		found, err := lookUser(s.User)
		if err != nil {
			return nil, account{}, err
		}
		if found == nil { // a number without an account
			id.UID, _ = strconv.Atoi(s.User)
			if s.Group == "" {
				return nil, account{}, fmt.Errorf("user: no user on this machine has the ID %s, so its group is unknown; set group", s.User)
			}
		} else {
			id.UID, _ = strconv.Atoi(found.Uid)
			id.GID, _ = strconv.Atoi(found.Gid)
			who = account{found.Username, found.HomeDir}
			groups, err := found.GroupIds()
			if err != nil {
				return nil, account{}, fmt.Errorf("user: the groups of %s are not known: %w", s.User, err)
			}
			for _, g := range groups {
				n, err := strconv.Atoi(g)
				if err != nil {
					return nil, account{}, fmt.Errorf("user: the groups of %s are not known: %w", s.User, err)
				}
				id.Groups = append(id.Groups, n)
			}
		}
	}
	if s.Group != "" {
		gid, err := lookUpGroup(s.Group)
		if err != nil {
			return nil, account{}, err
		}
		if id.GID = gid; s.User == "" {
			id.Groups = []int{gid}
		}
	}
	return id, who, nil
}

// lookUser returns the account of a name or number; nil for a number without an account.
func lookUser(name string) (*user.User, error) {
	found, err := user.Lookup(name)
	if err == nil {
		return found, nil
	}
	if _, numeric := strconv.ParseUint(name, 10, 31); numeric != nil {
		return nil, fmt.Errorf("user: there is no user %q on this machine", name)
	}
	if found, err = user.LookupId(name); err == nil {
		return found, nil
	}
	return nil, nil
}

func lookUpGroup(name string) (int, error) {
	if found, err := user.LookupGroup(name); err == nil {
		return strconv.Atoi(found.Gid)
	}
	if gid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(gid), nil
	}
	return 0, fmt.Errorf("group: there is no group %q on this machine", name)
}

// checkRlimit returns an error for a limit that only root may raise.
func checkRlimit(l launch.Rlimit) error {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(l.Resource, &now); err != nil {
		return fmt.Errorf("limits.%s: reading the limit that this process has: %w", l.Name, err)
	}
	if max(l.Value, l.Hard) <= uint64(now.Max) || //nolint:unconvert // it is signed on some systems
		launch.MayRaiseLimits() {
		return nil
	}
	return fmt.Errorf("limits.%s: it is %d, and this process may have %d at most; raise that (systemd: Limit...=, a shell: ulimit -H), or request less", l.Name, l.Value, now.Max)
}

func (s Settings) checkStrict() error {
	var errs []error
	least, what := launch.FilesABI, "sandbox: strict needs landlock as of Linux 6.2"
	if s.Connect != nil {
		least, what = launch.ConnectABI, "sandbox.connect needs landlock as of Linux 6.7"
	}
	switch abi := launch.LandlockABI(); {
	case abi == 0:
		errs = append(errs, fmt.Errorf("%s, and this kernel has none, or it is not enabled (the boot parameter lsm= must list landlock); leave it out", what))
	case abi < least:
		errs = append(errs, fmt.Errorf("%s (its version %d), and this kernel has version %d; upgrade the kernel, or leave it out", what, least, abi))
	}
	if !launch.CallsKnown() {
		errs = append(errs, fmt.Errorf("sandbox: strict needs seccomp on amd64 or arm64, and this kernel, for %s, lacks it, or forbids it; leave it out", runtime.GOARCH))
	}
	if s.User == "" && !launch.MayDropCapabilities() {
		errs = append(errs, errors.New("sandbox: strict takes root's capabilities from workers, for which this process lacks CAP_SETPCAP; grant it, or set user"))
	}
	// Read access to data_dir would expose its tokens. Another user never has access.
	for _, path := range append(append([]string{s.Dir}, s.Read...), s.Write...) {
		if s.User == "" && s.DataDir != "" && isWithin(s.DataDir, path) {
			errs = append(errs, fmt.Errorf("sandbox: strict lets workers read %s, and data_dir (%s) is in it, which is not for them; set data_dir to another place, such as /var/lib/drover, or set user", path, s.DataDir))
		}
	}
	for _, path := range append(append([]string{}, s.Read...), s.Write...) {
		if _, err := os.Stat(path); err != nil {
			errs = append(errs, fmt.Errorf("sandbox: %s cannot be given to workers: %w", path, errors.Unwrap(err)))
		}
	}
	return errors.Join(errs...)
}

// isWithin reports whether a path is dir or below it, after resolving links.
func isWithin(path, dir string) bool {
	real := func(p string) string {
		for rest := ""; ; { // data_dir may not exist yet
			if r, err := filepath.EvalSymlinks(p); err == nil {
				return filepath.Join(r, rest)
			}
			if p == filepath.Dir(p) {
				return filepath.Join(p, rest)
			}
			rest, p = filepath.Join(filepath.Base(p), rest), filepath.Dir(p)
		}
	}
	rel, err := filepath.Rel(real(dir), real(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// Notes returns warnings about settings that work on this machine.
func Notes(s Settings) (notes []string) {
	if abi := launch.LandlockABI(); s.Strict && abi >= launch.FilesABI && abi < launch.ScopeABI {
		notes = append(notes, fmt.Sprintf("sandbox: strict: before Linux 6.12 landlock (version %d here) does not keep a worker from sending signals to other processes of its user; set user for that", abi))
	}
	return notes
}
