//go:build linux && !amd64 && !arm64

package launch

// auditArch is 0: the calls of this machine are not known here, and nothing of them
// is restricted or promised.
const auditArch = 0

var deniedHere []uintptr
