package emulator

import (
	"bytes"
	"reflect"
	"testing"
	"time"
)

// everyType has a value of each type that an application property may have, those
// including some that no SDK here can write.
func everyType() map[any]any {
	return map[any]any{
		"null": nil, "true": true, "false": false, "ubyte": uint8(255), "ushort": uint16(65535), "uint": uint32(1 << 31), "ulong": uint64(1 << 63),
		"byte": int8(-7), "short": int16(-300), "int": int32(-1 << 31), "long": int64(-1 << 63), "float": float32(0.25), "double": 1.5,
		"char": char('é'), "time": time.UnixMilli(-1).UTC(), "uuid": uuid{1, 2}, "binary": []byte{0, 255}, "text": "grüße\r\n", "symbol": symbol("sym"),
		"decimal32": raw{0x74, 1, 2, 3, 4}, "decimal64": raw{0x84, 1, 2, 3, 4, 5, 6, 7, 8}, "decimal128": append(raw{0x94}, make([]byte, 16)...),
	}
}

func TestAMessageKeepsEveryType(t *testing.T) {
	body := appendValue(nil, described{code: 0x77, value: map[any]any{"array": raw{0xe0, 4, 3, 0x50, 1, 2}, true: []any{nil, []any{}}}})
	properties := []any{uuid{9}, nil, "to", nil, nil, uint64(7), symbol("application/json"), nil, time.UnixMilli(5).UTC()}
	footer := appendValue(nil, described{code: sectionFooter, value: map[any]any{symbol("f"): int32(1)}})
	application := appendValue(nil, described{code: sectionApplication, value: everyType()})
	sent := appendValue(nil, described{code: sectionHeader, value: []any{true, uint8(7), nil, true}})
	sent = appendValue(sent, described{code: sectionDelivery, value: map[any]any{symbol("hop"): "kept", lockToken: uuid{1}}})
	sent = appendValue(sent, described{code: sectionAnnotations, value: map[any]any{symbol("mine"): raw{0xf0, 0, 0, 0, 8, 0, 0, 0, 3, 0x50, 1, 2, 3}}})
	sent = appendValue(sent, described{code: sectionProperties, value: properties})
	sent = append(append(append(sent, application...), body...), footer...)

	m, err := decodeMessage(sent)
	if err != nil {
		t.Fatal(err)
	}
	out := m.encode(nil)
	if !bytes.HasSuffix(out, append(append(application, body...), footer...)) {
		t.Error("the application properties, the body or the footer changed")
	}
	again, err := decodeMessage(out)
	if err != nil || !reflect.DeepEqual(again, m) {
		t.Errorf("decoded again: %v, %#v", err, again)
	}
	if !reflect.DeepEqual(m.properties, properties) || !reflect.DeepEqual(m.delivery, map[any]any{symbol("hop"): "kept"}) {
		t.Errorf("properties %#v, delivery annotations %#v", m.properties, m.delivery)
	}

	m.setApplication(map[string]any{"DeadLetterReason": "r"})
	got, err := applicationProperties(m.application)
	want := everyType()
	want["DeadLetterReason"] = "r"
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("after a property was set: %v\n%#v\nwant\n%#v", err, got, want)
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	for name, data := range map[string][]byte{
		"no section":             {0x40},
		"a cut section":          {0, 0x53, 0x75, 0xa0, 9, 1},
		"an unknown type":        {0, 0x53, 0x75, 0x10},
		"properties of a string": appendValue(nil, described{code: sectionProperties, value: "x"}),
		"a list of properties":   appendValue(nil, described{code: sectionApplication, value: []any{"x"}}),
		"a symbolic descriptor":  appendValue(nil, described{name: "x", value: "x"}),
		"nested too deeply":      bytes.Repeat([]byte{0}, 100),
	} {
		if m, err := decodeMessage(data); err == nil {
			t.Errorf("%s: decoded to %#v", name, m)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(appendValue(nil, described{code: sectionApplication, value: everyType()}))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if m, err := decodeMessage(data); err == nil {
			m.setApplication(map[string]any{"a": 1.5})
			m.clone().encode(nil)
		}
	})
}
