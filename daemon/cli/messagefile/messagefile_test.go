package messagefile

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

// Messages are read as they were written.
func TestRoundTrip(t *testing.T) {
	want := []*triggers.Message{
		{ID: "1", Body: []byte("text\n\x1b[2J\u009b31m <&> \u2028"), Attempt: 1},
		{ID: "2", Body: []byte("\xff\x00"), Attempt: 1, Subject: "orders.new", OrderingKey: "k", Attributes: map[string]string{"tenant": "7", "": "x"}},
		{ID: "3", Body: []byte{}, Attempt: 1, Enqueued: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)},
	}
	var file []byte
	for _, m := range want {
		l, err := MarshalMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(l, []byte("\n")) != 1 || bytes.ContainsFunc(bytes.TrimSuffix(l, []byte("\n")), func(r rune) bool { return r < ' ' || isControl(r) }) {
			t.Errorf("%q is not a line that is safe to print", l)
		}
		file = append(file, l...)
	}
	got, err := Read("f", bytes.NewReader(file))
	if err != nil || got.Truncated != "" || !reflect.DeepEqual(got.All, want) {
		t.Errorf("%v, %q\n%+v", err, got.Truncated, got.All)
	}
}

func TestRead(t *testing.T) {
	for text, want := range map[string][]triggers.Message{
		"{\"body\":\"a\"}\n\n  {\"body\":\"b\",\"id\":\"x\"}": {{ID: "m.jsonl:1", Body: []byte("a")}, {ID: "x", Body: []byte("b")}},
		"\ufeff{\"body\":\"a\"}\r\n":                          {{ID: "m.jsonl:1", Body: []byte("a")}},
		`{"body_base64":"/wA="}`:                              {{ID: "m.jsonl:1", Body: []byte{0xff, 0}}},
		`{"id":"9","message":"orders:3","function":"f","reason":"r","detail":"d","attempts":2,"died":"2026-01-02T03:04:05Z","body":"dead"}`: {{ID: "orders:3", Body: []byte("dead")}},
	} {
		got, err := Read("dir/m.jsonl", strings.NewReader(text))
		if err != nil || len(got.All) != len(want) {
			t.Errorf("%q: %v, %d messages", text, err, len(got.All))
			continue
		}
		for i, m := range got.All {
			want[i].Attempt = 1
			if !reflect.DeepEqual(*m, want[i]) {
				t.Errorf("%q: message %d is %+v, want %+v", text, i, *m, want[i])
			}
		}
	}
}

func TestReadErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "f has no message: it needs at least one line",
		"\n \n":                             "f has no message",
		"hello\n":                           "f:1: not a message: a message is a JSON object on one line",
		"{\"body\":\"a\"}\n[1]":             "f:2: not a message",
		"{\"body\":\"a\"}\n{\"order\":7}":   `f:2: a message has no key "order"; it has body or body_base64`,
		"{\n \"body\": \"a\"\n}":            "f:1: the object does not end on its line",
		`{"body":"a"}{"body":"b"}`:          "f:1: text follows the message",
		`{"body":"a"} x`:                    "f:1: text follows the message",
		`{}`:                                "f:1: it needs either body or body_base64",
		`{"body":"a","body_base64":"YQ=="}`: "it needs either body or body_base64",
		`{"body":{"id":7}}`:                 "body is an object; it must be a string",
		`{"body":"a","attributes":{"n":7}}`: "is a number; attributes must be strings",
		`{"body":"a","id":7}`:               "id is a number, and must be a string",
		`{"body_base64":"%"}`:               "f:1: invalid JSON: illegal base64",
		`{"body":"a","enqueued":"today"}`:   "f:1: invalid JSON",
		`{"body" "a"}`:                      "f:1: invalid JSON",
		"\x7fELF\x02\x01\x01\x00":           "f:1: not text: a file of messages is JSON",
		"\xff\xfe{\x00":                     "f:1: not text",
	} {
		if got, err := Read("f", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) || len(got.All) > 0 {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// endless is a file without an end.
type endless struct {
	line []byte
	at   int
	read int
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		c := copy(p[n:], e.line[e.at:])
		n, e.at = n+c, (e.at+c)%len(e.line)
	}
	e.read += n
	return n, nil
}

func TestReadIsBounded(t *testing.T) {
	most := limits{line: 1 << 20, bytes: 100 << 10, messages: 20}
	small := &endless{line: []byte("{\"body\":\"a\"}\n")}
	got, err := readLines("f", small, most)
	if err != nil || len(got.All) != 20 || !strings.Contains(got.Truncated, "only the first 20 messages") {
		t.Errorf("%v, %d messages, %q", err, len(got.All), got.Truncated)
	}
	large := &endless{line: []byte("{\"body\":\"" + strings.Repeat("x", 10<<10) + "\"}\n")}
	got, err = readLines("f", large, most)
	if err != nil || len(got.All) != 10 || !strings.Contains(got.Truncated, "only the first 10 messages") || large.read > 2*most.bytes {
		t.Errorf("%v, %d messages, %q, of %d bytes", err, len(got.All), got.Truncated, large.read)
	}
	if _, err := readLines("f", &endless{line: bytes.Repeat([]byte("x"), 1000)}, most); err == nil || !strings.Contains(err.Error(), "f:1: the line is longer than 1 MiB") {
		t.Error(err)
	}
	if _, err := Read("f", io.MultiReader(strings.NewReader("{\"body\":\"a\"}\n"), failing{})); err == nil || !strings.Contains(err.Error(), "after line 1: no luck") {
		t.Error(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readDirectory(dir, most); err == nil || !strings.Contains(err.Error(), "large has 2 MiB: no source accepts such a message") {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, noLuck("no luck") }

type noLuck string

func (n noLuck) Error() string { return string(n) }

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"b.bin": "\xff\x00", "a.json": `{"order": 7}`, ".hidden": "no", "sub/file": "no"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadPath(dir)
	if err != nil || len(got.All) != 2 || got.All[0].ID != "a.json" || string(got.All[0].Body) != `{"order": 7}` || string(got.All[1].Body) != "\xff\x00" || got.All[1].Attempt != 1 {
		t.Errorf("%v, %+v", err, got.All)
	}
	if _, err := ReadPath(t.TempDir()); err == nil || !strings.Contains(err.Error(), "has no file") {
		t.Error(err)
	}
	if _, err := ReadPath(filepath.Join(dir, "nowhere")); err == nil || !strings.Contains(err.Error(), "reading messages") {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "m.jsonl")
	if err := os.WriteFile(path, []byte(`{"body":"a"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadPath(path); err != nil || len(got.All) != 1 {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPath(path); err == nil || !strings.HasPrefix(err.Error(), path+":1: ") {
		t.Error(err)
	}
}
