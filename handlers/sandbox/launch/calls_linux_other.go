//go:build linux && !amd64 && !arm64

package launch

// auditArch is 0: the system calls of this architecture are not known here, so they cannot be
// restricted.
const auditArch = 0

var deniedHere []uintptr
