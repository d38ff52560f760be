package concurrency

// The kinds of functions.
const (
	KindUnknown  = ""
	KindCPU      = "cpu"      // computes
	KindBlocking = "blocking" // waits, and keeps a thread while it does
	KindAsync    = "async"    // waits on the event loop
	KindMixed    = "mixed"    // computes and waits
)

// Kind is what is known of a function.
type Kind struct {
	// Kind is one of the constants.
	Kind string `json:"kind"`
	// CPU is the part of a call's time that it computes, if it had the machine to
	// itself, and Waits the rest; both 0 where the kind is unknown.
	CPU   float64 `json:"cpu"`
	Waits float64 `json:"waits"`
	// ReleasesGIL says that it computes without holding the GIL, so that threads of one
	// process share the cores.
	ReleasesGIL bool `json:"releases_gil"`
	// NeverAwaits says that an async function has the event loop to itself from its
	// start to its end.
	NeverAwaits bool `json:"never_awaits"`
	// BlocksLoop says that an async function keeps the event loop from turning for long.
	BlocksLoop bool `json:"blocks_loop"`
	// Sure is how sure that is, 0 to 1: a call's wall contains its waiting for the GIL
	// and for a core, so what was measured while those were short counts more.
	Sure float64 `json:"sure"`
}
