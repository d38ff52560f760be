package codec

import (
	"bytes"
	"reflect"
	"testing"
	"time"
)

// everyType has a value of each type of an application property, including types that no SDK can
// write here.
func everyType() map[any]any {
	return map[any]any{
		"null": nil, "true": true, "false": false, "ubyte": uint8(255), "ushort": uint16(65535), "uint": uint32(1 << 31), "ulong": uint64(1 << 63),
		"byte": int8(-7), "short": int16(-300), "int": int32(-1 << 31), "long": int64(-1 << 63), "float": float32(0.25), "double": 1.5,
		"char": Char('é'), "time": time.UnixMilli(-1).UTC(), "uuid": UUID{1, 2}, "binary": []byte{0, 255}, "text": "grüße\r\n", "symbol": Symbol("sym"),
		"decimal32": Raw{0x74, 1, 2, 3, 4}, "decimal64": Raw{0x84, 1, 2, 3, 4, 5, 6, 7, 8}, "decimal128": append(Raw{0x94}, make([]byte, 16)...),
	}
}

func TestAMessageKeepsEveryType(t *testing.T) {
	body := AppendValue(nil, Described{Code: 0x77, Value: map[any]any{"array": Raw{0xe0, 4, 3, 0x50, 1, 2}, true: []any{nil, []any{}}}})
	properties := []any{UUID{9}, nil, "to", nil, nil, uint64(7), Symbol("application/json"), nil, time.UnixMilli(5).UTC()}
	footer := AppendValue(nil, Described{Code: sectionFooter, Value: map[any]any{Symbol("f"): int32(1)}})
	application := AppendValue(nil, Described{Code: sectionApplication, Value: everyType()})
	sent := AppendValue(nil, Described{Code: sectionHeader, Value: []any{true, uint8(7), nil, true}})
	sent = AppendValue(sent, Described{Code: sectionDelivery, Value: map[any]any{Symbol("hop"): "kept", LockToken: UUID{1}}})
	sent = AppendValue(sent, Described{Code: sectionAnnotations, Value: map[any]any{Symbol("mine"): Raw{0xf0, 0, 0, 0, 8, 0, 0, 0, 3, 0x50, 1, 2, 3}}})
	sent = AppendValue(sent, Described{Code: sectionProperties, Value: properties})
	sent = append(append(append(sent, application...), body...), footer...)

	m, err := DecodeMessage(sent)
	if err != nil {
		t.Fatal(err)
	}
	out := m.Encode(nil)
	if !bytes.HasSuffix(out, append(append(application, body...), footer...)) {
		t.Error("the application properties, the body or the footer changed")
	}
	again, err := DecodeMessage(out)
	if err != nil || !reflect.DeepEqual(again, m) {
		t.Errorf("decoded again: %v, %#v", err, again)
	}
	if !reflect.DeepEqual(m.properties, properties) || !reflect.DeepEqual(m.delivery, map[any]any{Symbol("hop"): "kept"}) {
		t.Errorf("properties %#v, delivery annotations %#v", m.properties, m.delivery)
	}

	m.SetApplication(map[string]any{"DeadLetterReason": "r"})
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
		"properties of a string": AppendValue(nil, Described{Code: sectionProperties, Value: "x"}),
		"a list of properties":   AppendValue(nil, Described{Code: sectionApplication, Value: []any{"x"}}),
		"a symbolic descriptor":  AppendValue(nil, Described{Name: "x", Value: "x"}),
		"nested too deeply":      bytes.Repeat([]byte{0}, 100),
	} {
		if m, err := DecodeMessage(data); err == nil {
			t.Errorf("%s: decoded to %#v", name, m)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(AppendValue(nil, Described{Code: sectionApplication, Value: everyType()}))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if m, err := DecodeMessage(data); err == nil {
			m.SetApplication(map[string]any{"a": 1.5})
			m.Clone().Encode(nil)
		}
	})
}
