package conformance

import (
	"encoding/binary"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

const ruleWrong = "a frame's length is 0 or over its maximum, its type is unknown or not allowed now"

// wrongCheck returns a check that a worker ends on an invalid frame, and does not answer it.
func wrongCheck(name string, modes []mode, before func(*session), frames func() []driver.Frame) check {
	return check{name: "wrong/" + name, modes: modes, rule: ruleWrong, run: func(s *session) {
		before(s)
		s.Send(frames()...)
		s.ExpectExit()
	}}
}

func oneFrame(f func() driver.Frame) func() []driver.Frame {
	return func() []driver.Frame { return []driver.Frame{f()} }
}

// wrongLength returns a frame with a wrong length.
func wrongLength(kind protocol.Kind, n uint32) driver.Frame {
	out := append(binary.LittleEndian.AppendUint32(nil, n), byte(kind))
	if n == 0 {
		out = out[:4]
	}
	return driver.Frame{Text: "the beginning of a frame", Bytes: append(out, make([]byte, 64)...)}
}

// damagedInvoke returns an INVOKE of echo with bytes replaced at a position, counted from its
// length field.
func damagedInvoke(at int, bytes ...byte) driver.Frame {
	f := invokeFrame(0, "echo", "body")
	copy(f.Bytes[at:], bytes)
	f.Text, f.Opens = "a damaged INVOKE", nil
	return f
}

// The positions of the fields of an INVOKE.
const (
	functionAt = 4 + 1 + 4
	metaAt     = functionAt + 2 + 2 + 4 + 8 + 8
)

var wrongChecks = []check{
	wrongCheck("hello-no-json", nil, (*session).startWorker, oneFrame(func() driver.Frame { return driver.RawFrame(protocol.Hello, []byte("{")) })),
	wrongCheck("load-first", nil, (*session).startWorker, oneFrame(func() driver.Frame { return driver.RawFrame(protocol.Load, []byte("{}")) })),
	wrongCheck("hello-twice", nil, (*session).handshake, oneFrame(func() driver.Frame { return helloFrame(daemonCan) })),
	wrongCheck("load-no-json", nil, (*session).handshake, oneFrame(func() driver.Frame { return driver.RawFrame(protocol.Load, []byte("no")) })),
	wrongCheck("invoke-before-load", nil, (*session).handshake, oneFrame(func() driver.Frame { return damagedInvoke(0) })),
	wrongCheck("hello-late", all, (*session).loadApp, oneFrame(func() driver.Frame { return helloFrame(daemonCan) })),
	wrongCheck("load-twice", all, (*session).loadApp, oneFrame(func() driver.Frame { return driver.RawFrame(protocol.Load, []byte("{}")) })),
	wrongCheck("length-0", all, (*session).loadApp, oneFrame(func() driver.Frame { return wrongLength(protocol.Invoke, 0) })),
	wrongCheck("too-large", all, (*session).loadApp, oneFrame(func() driver.Frame { return wrongLength(protocol.Invoke, driver.MaxFrame+1) })),
	wrongCheck("too-large-by-far", nil, (*session).loadApp, oneFrame(func() driver.Frame { return wrongLength(protocol.Invoke, 0xFFFFFFFF) })),
	wrongCheck("cancel-too-large", nil, (*session).loadApp, oneFrame(func() driver.Frame { return wrongLength(protocol.Cancel, protocol.MaxSmall+1) })),
	wrongCheck("unknown-type", all, (*session).loadApp, oneFrame(func() driver.Frame { return driver.RawFrame(200, []byte("what?")) })),
	wrongCheck("type-0", nil, (*session).loadApp, oneFrame(func() driver.Frame { return driver.RawFrame(0, nil) })),
	wrongCheck("type-of-ours", nil, (*session).loadApp, oneFrame(func() driver.Frame { return driver.RawFrame(protocol.Result, make([]byte, 9)) })),
	wrongCheck("invoke-short", all, (*session).loadApp, oneFrame(func() driver.Frame { return driver.RawFrame(protocol.Invoke, make([]byte, 10)) })),
	wrongCheck("meta-too-long", all, (*session).loadApp, oneFrame(func() driver.Frame { return damagedInvoke(metaAt, 0xFF, 0xFF) })),
	wrongCheck("meta-of-4-gib", nil, (*session).loadApp, oneFrame(func() driver.Frame { return damagedInvoke(metaAt, 0xFF, 0xFF, 0xFF, 0xFF) })),
	wrongCheck("state-too-long", nil, (*session).loadApp, oneFrame(func() driver.Frame {
		f := fullInvoke("echo", &protocol.Invocation{Message: &triggers.Message{ID: "m", Attempt: 1}, Stateful: true, State: []byte("s")})
		f.Text, f.Opens = "an INVOKE whose state is longer than the frame", nil
		f.Bytes[metaAt+4+1] = 0xFF
		return f
	})),
	wrongCheck("no-such-function", all, (*session).loadApp, oneFrame(func() driver.Frame { return damagedInvoke(functionAt, 0xFF, 0xFF) })),
	wrongCheck("cancel-short", all, (*session).loadApp, oneFrame(func() driver.Frame { return driver.RawFrame(protocol.Cancel, []byte{1, 2}) })),
	wrongCheck("behind-a-good-one", all, (*session).loadApp, func() []driver.Frame {
		return []driver.Frame{cancelFrame(5), driver.RawFrame(99, []byte("x"))}
	}),
}
