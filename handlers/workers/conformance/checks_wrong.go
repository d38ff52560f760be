package conformance

import (
	"encoding/binary"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

const ruleWrong = "a frame's length is 0 or over its maximum, its type is unknown or not allowed now"

// wrong returns a check that a worker ends on an invalid frame, and does not answer it.
func wrong(name string, modes []mode, before func(*session), frames func() []driver.Frame) check {
	return check{name: "wrong/" + name, modes: modes, rule: ruleWrong, run: func(s *session) {
		before(s)
		s.Send(frames()...)
		s.ExpectExit()
	}}
}

func lone(f func() driver.Frame) func() []driver.Frame {
	return func() []driver.Frame { return []driver.Frame{f()} }
}

// length returns a frame with a wrong length.
func length(kind protocol.Kind, n uint32) driver.Frame {
	out := append(binary.LittleEndian.AppendUint32(nil, n), byte(kind))
	if n == 0 {
		out = out[:4]
	}
	return driver.Frame{Text: "the beginning of a frame", Bytes: append(out, make([]byte, 64)...)}
}

// damaged returns an INVOKE of echo with bytes replaced at a position, counted from its length field.
func damaged(at int, bytes ...byte) driver.Frame {
	f := invoke(0, "echo", "body")
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
	wrong("hello-no-json", nil, (*session).start, lone(func() driver.Frame { return driver.RawFrame(protocol.Hello, []byte("{")) })),
	wrong("load-first", nil, (*session).start, lone(func() driver.Frame { return driver.RawFrame(protocol.Load, []byte("{}")) })),
	wrong("hello-twice", nil, (*session).handshake, lone(func() driver.Frame { return hello(daemonCan) })),
	wrong("load-no-json", nil, (*session).handshake, lone(func() driver.Frame { return driver.RawFrame(protocol.Load, []byte("no")) })),
	wrong("invoke-before-load", nil, (*session).handshake, lone(func() driver.Frame { return damaged(0) })),
	wrong("hello-late", all, (*session).load, lone(func() driver.Frame { return hello(daemonCan) })),
	wrong("load-twice", all, (*session).load, lone(func() driver.Frame { return driver.RawFrame(protocol.Load, []byte("{}")) })),
	wrong("length-0", all, (*session).load, lone(func() driver.Frame { return length(protocol.Invoke, 0) })),
	wrong("too-large", all, (*session).load, lone(func() driver.Frame { return length(protocol.Invoke, driver.MaxFrame+1) })),
	wrong("too-large-by-far", nil, (*session).load, lone(func() driver.Frame { return length(protocol.Invoke, 0xFFFFFFFF) })),
	wrong("cancel-too-large", nil, (*session).load, lone(func() driver.Frame { return length(protocol.Cancel, protocol.MaxSmall+1) })),
	wrong("unknown-type", all, (*session).load, lone(func() driver.Frame { return driver.RawFrame(200, []byte("what?")) })),
	wrong("type-0", nil, (*session).load, lone(func() driver.Frame { return driver.RawFrame(0, nil) })),
	wrong("type-of-ours", nil, (*session).load, lone(func() driver.Frame { return driver.RawFrame(protocol.Result, make([]byte, 9)) })),
	wrong("invoke-short", all, (*session).load, lone(func() driver.Frame { return driver.RawFrame(protocol.Invoke, make([]byte, 10)) })),
	wrong("meta-too-long", all, (*session).load, lone(func() driver.Frame { return damaged(metaAt, 0xFF, 0xFF) })),
	wrong("meta-of-4-gib", nil, (*session).load, lone(func() driver.Frame { return damaged(metaAt, 0xFF, 0xFF, 0xFF, 0xFF) })),
	wrong("state-too-long", nil, (*session).load, lone(func() driver.Frame {
		f := invocation("echo", &protocol.Invocation{Message: &triggers.Message{ID: "m", Attempt: 1}, Stateful: true, State: []byte("s")})
		f.Text, f.Opens = "an INVOKE whose state is longer than the frame", nil
		f.Bytes[metaAt+4+1] = 0xFF
		return f
	})),
	wrong("no-such-function", all, (*session).load, lone(func() driver.Frame { return damaged(functionAt, 0xFF, 0xFF) })),
	wrong("cancel-short", all, (*session).load, lone(func() driver.Frame { return driver.RawFrame(protocol.Cancel, []byte{1, 2}) })),
	wrong("behind-a-good-one", all, (*session).load, func() []driver.Frame {
		return []driver.Frame{cancel(5), driver.RawFrame(99, []byte("x"))}
	}),
}
