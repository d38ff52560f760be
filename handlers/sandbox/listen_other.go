//go:build !linux

package sandbox

// serveCalls exists only on Linux; elsewhere there is no launch stage.
func (b *Box) serveCalls() { close(b.listenerSettled) }
