package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// cut is a frame as the reference implementation reads it.
type cut struct {
	kind    Kind
	payload string
}

// cutAll cuts frames in the simplest way. wrong reports that no frame follows.
func cutAll(data []byte, maximum int) (frames []cut, wrong bool) {
	for len(data) >= 4 {
		length := int(binary.LittleEndian.Uint32(data))
		if length == 0 {
			return frames, true
		}
		if len(data) < 5 {
			break
		}
		kind := Kind(data[4])
		if kind == 0 || length > frameLimit(kind, maximum) {
			return frames, true
		}
		if len(data) < 4+length {
			break
		}
		frames = append(frames, cut{kind, string(data[5 : 4+length])})
		data = data[4+length:]
	}
	return frames, false
}

// feed feeds a parser data in pieces, cycling through the given sizes.
func feed(t *testing.T, p *Parser, data, pieces []byte) (frames []cut, err error) {
	given := 0
	for at := 0; given < len(data); at++ {
		n := len(data) - given
		if len(pieces) > 0 {
			n = min(n, 1+int(pieces[at%len(pieces)]))
		}
		space := p.ReadBuffer()
		if len(space) == 0 {
			t.Fatal("no space for more bytes")
		}
		n = copy(space, data[given:given+n])
		p.AdvanceRead(n)
		given += n
		for {
			kind, payload, err := p.NextFrame()
			if err != nil {
				return frames, err
			}
			if kind == 0 {
				break
			}
			frames = append(frames, cut{kind, string(payload)})
		}
		if len(p.buffer) > max(readSize, 2*given) {
			t.Fatalf("a buffer of %d bytes, after %d bytes", len(p.buffer), given)
		}
	}
	return frames, nil
}

// FuzzParser checks that frames do not depend on how they are divided, and that no memory is
// reserved for their announced lengths.
func FuzzParser(f *testing.F) {
	good := AppendCancel(AppendDrain(nil), 7)
	good = AppendInvoke(good, &Invocation{Message: &triggers.Message{ID: "m", Body: []byte("body"), Attributes: map[string]string{"a": "b"}}})
	f.Add(good, []byte{}, uint32(DefaultMax))
	f.Add(good, []byte{0}, uint32(64))
	f.Add(append(slices.Clone(good), 0, 0, 0, 0), []byte{2, 0}, uint32(1000))
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0xFF, 68}, []byte{0}, uint32(1<<20))
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0x07, 68, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, []byte{0}, uint32(DefaultMax))
	f.Add([]byte{1, 0, 0, 0, 0}, []byte{}, uint32(1))
	f.Fuzz(func(t *testing.T, data, pieces []byte, maximum uint32) {
		most := int(maximum % (DefaultMax + 1))
		want, wrong := cutAll(data, most)
		got, err := feed(t, NewParser(most), data, pieces)
		if !slices.Equal(got, want) || (err != nil) != wrong {
			t.Fatalf("%d frames (%v), want %d, wrong: %v", len(got), err, len(want), wrong)
		}
		if err != nil && !errors.Is(err, ErrProtocol) {
			t.Fatal(err)
		}
	})
}

// FuzzDecode checks that the values in any worker's JSON are bounded.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		`{"protocol":3,"pid":1,"language":"x","version":"1","capabilities":["log"]}`,
		`{"functions":[{"name":"f","kind":"sync"}]}`, `{"after":1e300}`, `{"after":-1}`, `{"summary":"s","detail":"d","after":1.5}`,
		`{"id":-1,"level":"INFO","logger":"l","text":"t"}`, `{"period_us":100000,"lags_us":[1,2,99999999999]}`,
		`{"block":4294967295,"function":-1,"took_us":9223372036854775807,"asleep_us":-1,"place":"p"}`,
		`{"period_us":1,"lags_us":[9223372036854775807]}`, `{"period_us":-1,"lags_us":[-9223372036854775808]}`,
		`{"profile":1,"lines":[{"function":"f","line":-1}],"stacks":[{"stack":[0],"samples":1,"time_us":9223372036854775807},{"stack":[1e9]}]}`,
		`{"profile":1,"lines":[{}],"stacks":[{"stack":[0,0],"samples":3,"time_us":30000}],"dropped":{"samples":1}}`, `{"paths":["/app/a.py","b",""]}`, `{"paths":[1]}`, `null`, `[]`, `{"lags_us":null}`,
		`{"delays_us":[[0,9223372036854775807,9223372036854775807,1,0,0]]}`, `{"delays_us":[[0,20,10,4,2,6],[-1,0,0,0,0,0]]}`, `{"id":1e400}`, "\xff",
	} {
		for kind := Welcome; kind <= Profiled; kind++ {
			f.Add(byte(kind), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		var into any
		switch Kind(kind) {
		case Welcome:
			into = new(WelcomeFrame)
		case Ready:
			into = new(ReadyFrame)
		case Failed:
			into = new(FailedFrame)
		case Result:
			into = new(Outcome)
		case Log:
			into = new(LogFrame)
		case Imported:
			into = new(ImportedFrame)
		case Blocked:
			into = new(BlockedFrame)
		case Profiled:
			into = new(ProfiledFrame)
		default:
			into = new(StatsFrame)
		}
		if err := DecodeFrame(Kind(kind), payload, into); err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		if profiled, ok := into.(*ProfiledFrame); ok {
			for _, s := range profiled.Stacks {
				if s.Samples < 0 || s.TotalTime() < 0 || len(s.Lines) == 0 || slices.Max(s.Lines) >= len(profiled.Lines) || slices.Min(s.Lines) < 0 {
					t.Fatalf("a stack %+v of %d lines", s, len(profiled.Lines))
				}
			}
		}
		if outcome, ok := into.(*Outcome); ok && !(outcome.After >= 0 && outcome.After <= maxAfter) {
			t.Fatalf("after %v", outcome.After)
		}
		if blocked, ok := into.(*BlockedFrame); ok && (blocked.Duration() < 0 || len(blocked.Place) > MaxPlace) {
			t.Fatalf("%v at %d bytes", blocked.Duration(), len(blocked.Place))
		}
		if stats, ok := into.(*StatsFrame); ok {
			for _, d := range stats.Delays {
				if !d.isValid() {
					t.Fatalf("delays %v", d)
				}
			}
			n := 0
			for wait := range stats.LoopWaits() {
				if n++; wait < 0 || n > maxLags+maxMissed {
					t.Fatalf("wait %d is %v", n, wait)
				}
			}
		}
	})
}

// FuzzPart checks that a PART is read within its bounds.
func FuzzPart(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 'x'})
	f.Add([]byte{1, 0, 0, 0, 3, 2, 0, 0, 0, '{', '}', 'x'})
	f.Add(append([]byte{1, 0, 0, 0, 1, 40, 0, 0, 0}, `{"status":200,"headers":[["a","b"],["a"]]}x`...))
	f.Add([]byte{1, 0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 'x'})
	f.Add([]byte{1, 0, 0, 0, 4})
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := ReadPart(payload)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		if len(p.Body) > len(payload)-5 || p.Head == nil && len(p.Body) != len(payload)-5 || p.Head != nil && p.Head.Properties()[triggers.HTTPStatus] == "" {
			t.Fatalf("%+v of %x", p, payload)
		}
	})
}

// FuzzResult checks that a RESULT is read within its bounds.
func FuzzResult(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 9, 0, 0, 0, 'x'})
	f.Add([]byte{1, 0, 0, 0, 5, 9, 0, 0, 0, 1, 0, 0, 0, 's', 'o'})
	f.Add([]byte{1, 0, 0, 0, 5, 9, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF})
	f.Add([]byte{1, 0, 0, 0, 5, 9, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF, 0})
	f.Add([]byte{1, 0, 0, 0, 6, 0, 0, 0, 0})
	f.Add(append([]byte{1, 0, 0, 0, 128, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 'n', 1, 0, 0, 0}, "vout"...))
	f.Add(append([]byte{1, 0, 0, 0, 128, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 'n', 1, 0, 0, 0}, "vout"...))
	for _, status := range []Status{sent | Done, sent | described | Done, sent | State, sent | NotTried} {
		head := append([]byte{1, 0, 0, 0, byte(status)}, make([]byte, 12)...)
		section := AppendSent(nil, []Sent{{Output: 1, Properties: triggers.Properties{"n": "v"}, Body: []byte("one")}, {Output: 0xFFFF, Body: []byte{}}})
		f.Add(append(slices.Concat(head, section), "plain"...))
		f.Add(slices.Concat(head, section[:len(section)-1]))
		section[0]--
		f.Add(slices.Concat(head, section))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		r, err := ReadResult(payload)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		if r.Status > State || r.Took < 0 || len(r.Payload) != len(payload)-resultSize || r.ID != binary.LittleEndian.Uint32(payload) {
			t.Fatalf("%+v of %x", r, payload)
		}
		if r.Sent {
			checkSent(t, r.Payload)
			return
		}
		if r.Described {
			all, output, err := CutProperties(r.Payload)
			if err != nil && !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			if size := 4 + pairsSize(all) + len(output); err == nil && size > len(r.Payload) { // a name may come twice
				t.Fatalf("%d bytes of %d", size, len(r.Payload))
			}
			return
		}
		state, output, err := CutState(r.Payload)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		if again := append(appendState(nil, state), output...); !bytes.Equal(again, r.Payload) {
			t.Fatalf("the state %x and the output %x of %x", state, output, r.Payload)
		}
	})
}

// checkSent checks that messages for named outputs are read within their bounds, and that
// AppendSent restores them.
func checkSent(t *testing.T, payload []byte) {
	all, rest, err := CutSent(payload)
	if err != nil {
		if !errors.Is(err, ErrProtocol) {
			t.Fatal(err)
		}
		return
	}
	if again := AppendSent(nil, all); len(again)+len(rest) > len(payload) { // a name may come twice
		t.Fatalf("%d bytes of %d", len(again)+len(rest), len(payload))
	}
	got, none, err := CutSent(AppendSent(nil, all))
	same := slices.EqualFunc(got, all, func(a, b Sent) bool {
		return a.Output == b.Output && maps.Equal(a.Properties, b.Properties) && bytes.Equal(a.Body, b.Body)
	})
	if err != nil || none != nil || !same {
		t.Fatalf("%+v, want %+v (%v)", got, all, err)
	}
}

// FuzzInvoke checks that AppendInvoke writes what the document specifies, with the length that Size
// returns.
func FuzzInvoke(f *testing.F) {
	f.Add(uint32(1), uint16(2), 3, int64(4), int64(5), "id", "subject", "key", "name", "value", []byte("body"), []byte("state"), true)
	f.Add(uint32(7), uint16(2), 3, int64(4), int64(5), "id", "subject", "key", "other-name", "value", []byte("odd"), []byte("state"), true)
	f.Add(uint32(0xFFFFFFFF), uint16(0xFFFF), -1, int64(-1), int64(0), "", "", "", "", "", []byte(nil), []byte(nil), false)
	f.Fuzz(func(t *testing.T, id uint32, function uint16, attempt int, enqueued, deadline int64, message, subject, key, name, value string, body, state []byte, stateful bool) {
		m := &triggers.Message{
			ID: message, Subject: subject, OrderingKey: key, Body: body, Attempt: attempt, Enqueued: moment(enqueued),
			Attributes: map[string]string{name: value, "other": strings.ToUpper(value)},
		}
		i := &Invocation{ID: id, Function: function, Deadline: moment(deadline), Message: m, Stateful: stateful, State: state}
		more := 0
		if len(name)%2 == 1 {
			i.Origin = []byte(value)
			more = 4 + len(value)
		}
		out := AppendInvoke(AppendCancel(nil, 1), i)[9:]
		frames, wrong := cutAll(out, DefaultMax)
		if wrong || len(frames) != 1 || frames[0].kind != Invoke {
			t.Fatalf("%v of %x", frames, out)
		}
		if len(body)%2 == 1 { // with properties, and a name of several values
			m.Repeated = map[string][]string{"other": {m.Attributes["other"], value, "", subject}}
			m.Origin = triggers.Known{"content_type": value, name: key, "sequence_number": "7"}
			out = AppendInvoke(AppendCancel(nil, 1), i)[9:]
			if frames, wrong = cutAll(out, DefaultMax); wrong || len(frames) != 1 {
				t.Fatalf("%v of %x", frames, out)
			}
		}
		if size := len(out) - 4 - more; !stateful && size != InvokeSize(m) || stateful && size != InvokeSize(m)+4+len(state) {
			t.Fatalf("%d bytes, where Size says %d", size, InvokeSize(m))
		}
		texts := []string{message, subject, key}
		for _, n := range slices.Sorted(maps.Keys(m.Attributes)) {
			if n == "" && m.Attributes[n] == "" {
				continue // it would be what parts attributes and properties
			}
			for _, v := range m.Values(n) {
				texts = append(texts, n, v)
			}
		}
		if all := m.Properties(); len(all) > 0 {
			texts = append(texts, "", "")
			for _, n := range slices.Sorted(maps.Keys(all)) {
				texts = append(texts, n, all[n])
			}
		}
		if err := checkInvoke(frames[0].payload, i, texts); err != nil {
			t.Fatal(err)
		}
	})
}

// moment is a time in µs, as in messages and deadlines.
func moment(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}

// checkInvoke reads an INVOKE field by field.
func checkInvoke(payload string, i *Invocation, texts []string) error {
	in := []byte(payload)
	take := func(n int) []byte { out := in[:n]; in = in[n:]; return out }
	u32 := func() uint32 { return binary.LittleEndian.Uint32(take(4)) }
	u16 := func() uint16 { return binary.LittleEndian.Uint16(take(2)) }
	i64 := func() int64 { return int64(binary.LittleEndian.Uint64(take(8))) }
	if id, function := u32(), u16(); id != i.ID || function != i.Function {
		return fmt.Errorf("id %d of function %d", id, function)
	}
	flags := u16()
	take(4) // the attempt, which is cut
	if enqueued, deadline := i64(), i64(); enqueued != unixMicros(i.Message.Enqueued) || deadline != unixMicros(i.Deadline) {
		return fmt.Errorf("enqueued %d, deadline %d", enqueued, deadline)
	}
	meta := int(u32())
	if (flags&withState != 0) != i.Stateful || (flags&withOrigin != 0) != (i.Origin != nil) || flags > withState|withOrigin {
		return fmt.Errorf("flags %d", flags)
	}
	if i.Stateful {
		switch n := u32(); {
		case n == noState && i.State == nil:
		case n == noState:
			return errors.New("no state")
		default:
			if state := take(int(n)); !bytes.Equal(state, i.State) {
				return fmt.Errorf("the state %x", state)
			}
		}
	}
	if i.Origin != nil {
		if origin := take(int(u32())); !bytes.Equal(origin, i.Origin) {
			return fmt.Errorf("the origin %q", origin)
		}
	}
	end := len(in) - meta
	for _, want := range texts {
		if got := string(take(int(u32()))); got != want {
			return fmt.Errorf("the text %q, want %q", got, want)
		}
	}
	if len(in) != end || !bytes.Equal(in, i.Message.Body) {
		return fmt.Errorf("the body %x", in)
	}
	return nil
}
