package conformance

import (
	"fmt"
	"slices"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// daemonCan are the capabilities that HELLO announces to a worker.
var daemonCan = []string{protocol.CanCancel, protocol.CanLog, protocol.CanSessionState, protocol.CanStats, protocol.CanMeasures, protocol.CanHeartbeat, protocol.CanImports, protocol.CanStream}

// templateCan are the capabilities that HELLO announces to a template.
var templateCan = append([]string{protocol.CanFork}, daemonCan...)

func helloFrame(can []string) driver.Frame {
	return driver.JSONFrame(protocol.Hello, protocol.HelloFrame{Protocol: protocol.Version, MaxFrame: driver.MaxFrame, Capabilities: can})
}

// invokeFrame returns an INVOKE of a function of the app.
func invokeFrame(id uint32, function, body string) driver.Frame {
	return fullInvoke(function, &protocol.Invocation{ID: id, Message: &triggers.Message{ID: fmt.Sprint("m", id), Attempt: 1, Body: []byte(body)}})
}

// fullInvoke returns an INVOKE with all possible parts.
func fullInvoke(function string, i *protocol.Invocation) driver.Frame {
	i.Function = uint16(slices.Index(functions, function))
	return driver.Frame{
		Text:  fmt.Sprintf("INVOKE %d of %s (%d bytes)", i.ID, function, len(i.Message.Body)),
		Bytes: protocol.AppendInvoke(nil, i), Opens: []uint32{i.ID},
	}
}

func cancelFrame(id uint32) driver.Frame {
	return driver.Frame{Text: fmt.Sprint("CANCEL ", id), Bytes: protocol.AppendCancel(nil, id)}
}

func drainFrame() driver.Frame { return driver.Frame{Text: "DRAIN", Bytes: protocol.AppendDrain(nil)} }
