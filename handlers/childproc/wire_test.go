package childproc

import (
	"bytes"
	"reflect"
	"testing"
)

func TestMessages(t *testing.T) {
	args, env := []string{"", "one", "\xff\x00"}, []string{}
	m, err := newMessage(kindStart, 3, 1<<40+7).addString("path").addString("").addStrings(args).addStrings(env).addUint32(9).addUint64(10).withLength()
	if err != nil {
		t.Fatal(err)
	}
	kind, f, err := readMessage(bytes.NewReader(m))
	if err != nil || kind != kindStart {
		t.Fatal(kind, err)
	}
	if id, path, name := f.readUint64(), f.readString(), f.readString(); id != 1<<40+7 || path != "path" || name != "" {
		t.Error(id, path, name)
	}
	if got, none := f.readStrings(), f.readStrings(); !reflect.DeepEqual(got, args) || len(none) != 0 {
		t.Errorf("%q %q", got, none)
	}
	if n, l := f.readUint32(), f.readUint64(); n != 9 || l != 10 || f.checkEnd() != nil {
		t.Error(n, l, f.checkEnd())
	}
	if f.readUint32() != 0 || f.readUint64() != 0 || f.readString() != "" || len(f.readStrings()) != 0 || f.checkEnd() == nil {
		t.Error("beyond the end there is something")
	}
	if _, err := newMessage(kindStart, 0, 1).addString(string(make([]byte, maxMessage))).withLength(); err == nil {
		t.Error("a message without bounds")
	}
}

// Any bytes are one message or none, and use no more memory than their length.
func FuzzMessages(f *testing.F) {
	for _, seed := range []message{
		newMessage(kindStart, 3, 1).addString("/bin/true").addString("").addString("").addStrings([]string{"a"}).addStrings(nil),
		newMessage(kindExited, 0, 1).addUint32(1).addUint32(9).addUint64(1).addUint64(2),
		newMessage(kindStart, 0, 1).addUint32(1<<32 - 1),
	} {
		m, err := seed.withLength()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(b)
		for {
			_, m, err := readMessage(in)
			if err != nil {
				return
			}
			whole := len(m.rest)
			copied := fields{rest: m.rest}
			size := len(copied.readString()) + len(copied.readString())
			for _, s := range append(copied.readStrings(), copied.readStrings()...) {
				size += len(s)
			}
			if size > whole {
				t.Errorf("%d bytes of %d", size, whole)
			}
			m.readUint64()
			m.readUint32()
			m.readDuration()
			if err := m.checkEnd(); err == nil && whole != 20 {
				t.Errorf("a message of %d bytes is taken for one of 20", whole)
			}
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("one\ntwo\r\n\n"), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		var whole, parts []string
		w := &Lines{Line: func(line string) { whole = append(whole, line) }}
		_, _ = w.Write(b)
		w.FlushRest()
		w = &Lines{Line: func(line string) { parts = append(parts, line) }}
		cut = min(max(cut, 0), len(b))
		_, _ = w.Write(b[:cut])
		_, _ = w.Write(b[cut:])
		w.FlushRest()
		if !reflect.DeepEqual(whole, parts) {
			t.Errorf("written at once it is %q, in parts %q", whole, parts)
		}
		for _, line := range whole {
			if len(line) > 3*MaxLine {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
	})
}
