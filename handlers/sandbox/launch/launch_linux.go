package launch

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// init runs the stage if the process was started as one. It runs on the process's main thread,
// whose limits the command inherits.
func init() {
	if len(os.Args) > 2 && os.Args[0] == Name {
		runtime.LockOSThread()
		os.Exit(runStage(os.Args))
	}
}

// step is one of the steps in Spec.
type step struct {
	name string
	do   func(Spec) error
}

// The order matters: groups and limits require rights that the new identity lacks, paths are
// opened while they are accessible, and the filter of system calls is last.
var steps = []step{
	{"joining its cgroup", joinCgroups},
	{"setting its limits", setRlimits},
	{"giving up capabilities", boundCapabilities},
	{"changing the user", changeIdentity},
	{"giving up capabilities", dropCapabilities},
	{"reading as its user", checkReachable},
	{"setting no_new_privs", setNoNewPrivs},
	{"landlock", restrictFiles},
	{"seccomp", restrictCalls},
	{"setting its limits", setAddressSpace},
}

// performSteps performs all steps and then executes the command. It returns the name of the step
// that failed.
func performSteps(socket io.ReadWriter, fd int, path string, argv []string) (string, error) {
	unix.CloseOnExec(fd)
	spec, err := readSpec(socket)
	if err != nil {
		return "starting", err
	}
	spec.socket = fd
	for _, s := range steps {
		if err := s.do(spec); err != nil {
			return s.name, err
		}
	}
	if _, err := socket.Write([]byte{reportOK}); err != nil {
		return "starting", err // the daemon has ended
	}
	if path == "" {
		return "", nil
	}
	// The environment is passed on unchanged.
	return "running " + path, syscall.Exec(path, argv, os.Environ()) //nolint:gosec // the request is to run it
}

func joinCgroups(s Spec) error {
	for _, file := range s.Cgroups {
		if err := os.WriteFile(file, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return err
		}
	}
	return nil
}

// setRlimits uses package syscall: Go raises the soft limit on open files, and restores it at
// exec unless syscall.Setrlimit was called.
func setRlimits(s Spec) error {
	for _, l := range s.Rlimits {
		if l.Resource == unix.RLIMIT_AS {
			continue
		}
		limit := syscall.Rlimit{Cur: l.Value, Max: max(l.Value, l.Hard)}
		if err := syscall.Setrlimit(l.Resource, &limit); err != nil {
			return fmt.Errorf("%s %d: %w", l.Name, l.Value, err)
		}
	}
	return nil
}

// setAddressSpace is the last limit, because this stage, as a Go program, uses more address space
// than some commands need.
func setAddressSpace(s Spec) error {
	for _, l := range s.Rlimits {
		if l.Resource != unix.RLIMIT_AS {
			continue
		}
		if err := syscall.Setrlimit(l.Resource, &syscall.Rlimit{Cur: l.Value, Max: l.Value}); err != nil {
			return fmt.Errorf("%s %d: %w", l.Name, l.Value, err)
		}
	}
	return nil
}

// changeIdentity sets the user and the groups. The kernel resets the parent-death signal when the
// identity changes, so it is set again.
func changeIdentity(s Spec) error {
	if s.Identity == nil {
		return nil
	}
	parent := os.Getppid()
	var signal int32
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, addressOf(&signal), 0, 0, 0); err != nil {
		return err
	}
	if err := syscall.Setgroups(s.Identity.Groups); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setresgid(s.Identity.GID, s.Identity.GID, s.Identity.GID); err != nil {
		return fmt.Errorf("setresgid: %w", err)
	}
	if err := syscall.Setresuid(s.Identity.UID, s.Identity.UID, s.Identity.UID); err != nil {
		return fmt.Errorf("setresuid: %w", err)
	}
	if signal == 0 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(signal), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != parent {
		return fmt.Errorf("its parent is gone")
	}
	return nil
}

func checkReachable(s Spec) error {
	for _, path := range s.Reachable {
		mode := uint32(unix.R_OK)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			mode |= unix.X_OK
		}
		if err := unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func setNoNewPrivs(s Spec) error {
	if !s.NoNewPrivs {
		return nil
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}
