package launch

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// deniedHere are those of denied that other machines don't have. Libraries use
// prlimit64 in place of setrlimit, which the filter looks into.
var deniedHere = []uintptr{unix.SYS_SETRLIMIT, unix.SYS_KEXEC_FILE_LOAD}
