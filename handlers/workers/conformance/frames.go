package conformance

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// maxFrame is the limit that HELLO announces. It is small, so that frames of that size are cheap.
const maxFrame = 2 << 20

// daemonCan are the capabilities that HELLO announces to a worker.
var daemonCan = []string{protocol.CanCancel, protocol.CanLog, protocol.CanSessionState, protocol.CanStats, protocol.CanMeasures, protocol.CanHeartbeat, protocol.CanImports}

// templateCan are the capabilities that HELLO announces to a template.
var templateCan = append([]string{protocol.CanFork}, daemonCan...)

// frame is one frame to send, and its name in the transcript.
type frame struct {
	text  string
	bytes []byte
	opens []uint32 // ids of invocations
}

func hello(can []string) frame {
	return jsonFrame(protocol.Hello, protocol.HelloFrame{Protocol: protocol.Version, MaxFrame: maxFrame, Capabilities: can})
}

func jsonFrame(kind protocol.Kind, value any) frame {
	out, err := protocol.AppendJSON(nil, kind, value)
	if err != nil {
		panic(err) // of our own making
	}
	return frame{text: fmt.Sprintf("%v %s", kind, excerpt(out[5:])), bytes: out}
}

// excerpt is the beginning of a payload, for people.
func excerpt(text []byte) string {
	if len(text) > 100 {
		return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(string(text[:100]), "?"), len(text))
	}
	return strings.ToValidUTF8(string(text), "?")
}

// raw is a frame of any kind and payload.
func raw(kind protocol.Kind, payload []byte) frame {
	out := binary.LittleEndian.AppendUint32(nil, uint32(1+len(payload)))
	return frame{text: fmt.Sprintf("%v of %d bytes", kind, 1+len(payload)), bytes: append(append(out, byte(kind)), payload...)}
}

// invoke is an INVOKE of a function of the app.
func invoke(id uint32, function, body string) frame {
	return invocation(function, &protocol.Invocation{ID: id, Message: &triggers.Message{ID: fmt.Sprint("m", id), Attempt: 1, Body: []byte(body)}})
}

// invocation is an INVOKE with all that may be in it.
func invocation(function string, i *protocol.Invocation) frame {
	i.Function = uint16(slices.Index(functions, function))
	return frame{
		text:  fmt.Sprintf("INVOKE %d of %s (%d bytes)", i.ID, function, len(i.Message.Body)),
		bytes: protocol.AppendInvoke(nil, i), opens: []uint32{i.ID},
	}
}

func cancel(id uint32) frame {
	return frame{text: fmt.Sprint("CANCEL ", id), bytes: protocol.AppendCancel(nil, id)}
}

func drain() frame { return frame{text: "DRAIN", bytes: protocol.AppendDrain(nil)} }
