package launch

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// CallsKnown reports whether this build and this kernel can restrict system calls.
func CallsKnown() bool {
	if auditArch == 0 {
		return false
	}
	// A flag that strict mode does not accept: EINVAL means that the call exists.
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_STRICT, 1, 0)
	return errno == unix.EINVAL
}

// denied are calls that no function needs, and that remove a confinement, or affect other
// processes or the machine. They return EPERM.
var denied = append([]uintptr{
	// other processes
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP, unix.SYS_PROCESS_MADVISE,
	// mounts and roots
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_SETNS,
	// the kernel itself
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN,
	unix.SYS_USERFAULTFD, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_SYSLOG, unix.SYS_FANOTIFY_INIT,
	// keys
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	// files without a path
	unix.SYS_OPEN_BY_HANDLE_AT,
	// the machine
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME,
	unix.SYS_ADJTIMEX, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_NFSSERVCTL, unix.SYS_VHANGUP,
}, deniedHere...)

// absent are calls for which programs have an alternative on kernels without them. They return
// ENOSYS. A filter cannot read the flags of clone3, and io_uring bypasses filters.
var absent = []uintptr{unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// namespaces are the flags of clone that create a namespace. CLONE_NEWTIME works only with
// unshare: in clone, its bit is part of the child's exit signal.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16 // 8 bytes each, the low half first on the supported machines
	x32Bit       = 0x40000000
	flowLabels   = 32 // IPV6_FLOWLABEL_MGR: options, such as routes, are sent with a label
)

func denyWith(errno syscall.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

var (
	allow  = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	listen = bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF}
)

// buildFilter returns the program that checks each system call. Each rule is self-contained, which
// keeps jumps short. Calls of other architectures, such as 32-bit ones, return ENOSYS.
func buildFilter(c SystemCall) []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		denyWith(unix.ENOSYS),
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1},
		denyWith(unix.ENOSYS),
	}
	number := func(call uintptr, then ...bpf.Instruction) {
		program = append(program, whenEqual(uint32(call), then...)...)
	}
	for _, call := range denied {
		number(call, denyWith(unix.EPERM))
	}
	for _, call := range absent {
		number(call, denyWith(unix.ENOSYS))
	}
	number(unix.SYS_CLONE, loadArgument(0), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaces, SkipFalse: 1}, denyWith(unix.EPERM), allow)
	number(unix.SYS_UNSHARE, loadArgument(0), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaces | unix.CLONE_NEWTIME, SkipFalse: 1}, denyWith(unix.EPERM), allow)
	// Otherwise a worker could type into the terminal of the daemon.
	number(unix.SYS_IOCTL, loadArgument(1),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.TIOCSTI, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.TIOCLINUX, SkipTrue: 1}, denyWith(unix.EPERM), allow)
	// Linux does not enforce this limit. It is the reaper's mark of a process.
	change := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArgs + 8*2, Size: 4}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 2},
		bpf.LoadAbsolute{Off: offsetArgs + 8*2 + 4, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		denyWith(unix.EPERM), allow,
	}
	number(unix.SYS_PRLIMIT64, append([]bpf.Instruction{loadArgument(1), bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.RLIMIT_LOCKS, SkipTrue: uint8(len(change) - 1)}}, change...)...)
	number(unix.SYS_SOCKET, socketRule(c)...)
	// Source routes send packets to another address than the checked one.
	number(unix.SYS_SETSOCKOPT, slices.Concat([]bpf.Instruction{loadArgument(1)},
		whenEqual(unix.IPPROTO_IP, ifAmong(2, denyWith(unix.EPERM), allow, unix.IP_OPTIONS)...),
		whenEqual(unix.IPPROTO_IPV6, ifAmong(2, denyWith(unix.EPERM), allow, unix.IPV6_RTHDR, unix.IPV6_2292PKTOPTIONS, flowLabels)...),
		[]bpf.Instruction{allow})...)
	// A message with MSG_FASTOPEN connects its socket without a call of connect. Programs fall back
	// to connect if it is not supported.
	send := func(call uintptr, flags uint32, then ...bpf.Instruction) {
		number(call, append([]bpf.Instruction{loadArgument(flags), bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.MSG_FASTOPEN, SkipTrue: 1}, denyWith(unix.EOPNOTSUPP)}, then...)...)
	}
	if !c.Addresses {
		send(unix.SYS_SENDTO, 3, allow)
		send(unix.SYS_SENDMSG, 2, allow)
		send(unix.SYS_SENDMMSG, 3, allow)
		return append(program, allow)
	}
	number(unix.SYS_CONNECT, listen)
	send(unix.SYS_SENDTO, 3,
		loadArgument(4), bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 3},
		bpf.LoadAbsolute{Off: offsetArgs + 8*4 + 4, Size: 4}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1}, allow, // already connected
		listen)
	send(unix.SYS_SENDMSG, 2, listen)
	send(unix.SYS_SENDMMSG, 3, listen)
	return append(program, allow)
}

// socketRule returns the rule for sockets. It excludes SCTP, DCCP and multipath TCP, whose ports and
// addresses the filters cannot check. Of netlink it allows what getaddrinfo uses.
func socketRule(c SystemCall) []bpf.Instruction {
	internet := append([]bpf.Instruction{
		loadArgument(1), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf}, // the other bits are flags
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: unix.SOCK_RAW, SkipTrue: 1}, denyWith(unix.EPROTONOSUPPORT),
	}, ifAmong(2, allow, denyWith(unix.EPROTONOSUPPORT), 0, unix.IPPROTO_ICMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6)...)
	out := slices.Concat([]bpf.Instruction{loadArgument(0)},
		whenEqual(unix.AF_INET, internet...), whenEqual(unix.AF_INET6, internet...),
		whenEqual(unix.AF_NETLINK, ifAmong(2, allow, denyWith(unix.EPROTONOSUPPORT), unix.NETLINK_ROUTE)...))
	if c.UnixSockets {
		out = append(out, whenEqual(unix.AF_UNIX, allow)...)
	}
	return append(out, denyWith(unix.EAFNOSUPPORT))
}

// loadArgument loads the low half of an argument, which is all of an int.
func loadArgument(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offsetArgs + 8*n, Size: 4} }

// whenEqual runs the instructions if the loaded value equals number; otherwise it skips them.
func whenEqual(number uint32, then ...bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: uint8(len(then))}}, then...)
}

// ifAmong returns is if an argument is among numbers, and otherwise isNot.
func ifAmong(n uint32, is, isNot bpf.Instruction, numbers ...uint32) []bpf.Instruction {
	out := []bpf.Instruction{loadArgument(n)}
	for i, number := range numbers {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipTrue: uint8(len(numbers) - i)})
	}
	return append(out, isNot, is)
}

func restrictCalls(s Spec) error {
	if s.Calls == nil {
		return nil
	}
	if auditArch == 0 {
		return errors.New("this build does not know the machine's system calls")
	}
	raw, err := bpf.Assemble(buildFilter(*s.Calls))
	if err != nil {
		return fmt.Errorf("assembling the filter: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return installFilter(s, &program)
}
