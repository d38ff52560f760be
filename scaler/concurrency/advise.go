package concurrency

// Advise says what auto would do instead of explicit numbers, from what was measured
// under them: kinds are the Controller's, s the latest Sample, and free the bounds
// that would hold if nothing were given. Empty if it would do the same.
func Advise(explicit Settings, free Bounds, kinds map[string]Kind, s Sample) string {
	return ""
}
