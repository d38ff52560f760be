package launch

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// deniedHere are denied calls that exist only on this architecture. Libraries use prlimit64, which
// the filter checks, instead of setrlimit.
var deniedHere = []uintptr{unix.SYS_SETRLIMIT, unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_CREATE_MODULE, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_USTAT, unix.SYS_SYSFS, unix.SYS_USELIB}
