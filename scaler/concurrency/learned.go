package concurrency

// Learned is what a Controller remembers over restarts, as JSON.
type Learned struct {
	// Cores is the machine's, when this was learned.
	Cores float64 `json:"cores"`
	// Kinds are those of the functions.
	Kinds map[string]Kind `json:"kinds,omitempty"`
	// Found has the best settings for each set of functions that were busy together,
	// the latest last.
	Found []Found `json:"found,omitempty"`
	// PerWorker and PerCall are the memory that a worker takes, and what a call in
	// flight adds to it at most, in bytes.
	PerWorker uint64 `json:"per_worker,omitempty"`
	PerCall   uint64 `json:"per_call,omitempty"`
}

// Found is what was best while these functions were busy, and no others.
type Found struct {
	Functions []string       `json:"functions"`
	Settings  Settings       `json:"settings"`
	Limits    map[string]int `json:"limits,omitempty"`
}
