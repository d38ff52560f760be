package launch

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// deniedHere are denied calls that exist only on this architecture. Libraries use prlimit64, which
// the filter checks, instead of setrlimit.
var deniedHere = []uintptr{unix.SYS_SETRLIMIT, unix.SYS_KEXEC_FILE_LOAD}
