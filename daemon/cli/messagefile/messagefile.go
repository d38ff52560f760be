// Package messagefile reads and writes files of messages: drover capture writes them, and drover
// tune reads them.
//
// A file is JSON, one message a line, in UTF-8. A line is an object with the keys
//
//	body          the body, if it is text
//	body_base64   the body in base64, if it is not; a message has one of the two
//	id            the message's ID; by default it is made of the file's name and the line
//	subject       the name that it was sent to: a NATS subject, a queue
//	attributes    an object of texts: its headers
//	repeated      an object of lists of texts: all values of headers that occur more than once
//	properties    an object of texts: properties at the source, such as content_type
//	ordering_key  the key of its order: a session's ID, a token of its subject
//	enqueued      when the source accepted it, as 2026-01-02T15:04:05Z
//
// and no others, except those that drover dead list --json adds: a list of dead letters is a file
// of messages. Empty lines are skipped. If the path is a directory, each of its files is a body.
// No other format is accepted.
package messagefile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drover-run/drover/triggers"
)

// limits has the maximum length of a line, in bytes, which is enough for the largest body of any
// source in base64, and the maximum of all messages together.
type limits struct{ line, bytes, messages int }

var defaultLimits = limits{line: 96 << 20, bytes: 256 << 20, messages: 100_000}

// line is one message. The last five fields are of a dead letter.
type line struct {
	ID         string              `json:"id,omitempty"`
	Subject    string              `json:"subject,omitempty"`
	Key        string              `json:"ordering_key,omitempty"`
	Enqueued   *time.Time          `json:"enqueued,omitempty"`
	Attributes map[string]string   `json:"attributes,omitempty"`
	Repeated   map[string][]string `json:"repeated,omitempty"`
	Properties triggers.Properties `json:"properties,omitempty"`
	Body       *string             `json:"body,omitempty"`
	BodyBase64 []byte              `json:"body_base64,omitempty"`

	Message  string     `json:"message,omitempty"` // its ID, if id is the dead letter's
	Function string     `json:"function,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Detail   string     `json:"detail,omitempty"`
	Attempts int        `json:"attempts,omitempty"`
	Died     *time.Time `json:"died,omitempty"`
}

const validKeys = "body or body_base64, id, subject, attributes, repeated, properties, ordering_key and enqueued"

// Messages are the messages of a file.
type Messages struct {
	All []*triggers.Message
	// Truncated is the reason why the file has more messages than were read; empty if it has no
	// more.
	Truncated string
}

// MarshalMessage returns a message as a line.
func MarshalMessage(m *triggers.Message) ([]byte, error) {
	l := line{ID: m.ID, Subject: m.Subject, Key: m.OrderingKey, Attributes: m.Attributes, Repeated: m.Repeated, Properties: m.Properties()}
	if !m.Enqueued.IsZero() {
		at := m.Enqueued.UTC()
		l.Enqueued = &at
	}
	if utf8.Valid(m.Body) {
		text := string(m.Body)
		l.Body = &text
	} else {
		l.BodyBase64 = m.Body
	}
	return MarshalLine(l)
}

// MarshalLine returns a value as a line, with EscapeControls.
func MarshalLine(v any) ([]byte, error) {
	var out bytes.Buffer
	to := json.NewEncoder(&out)
	to.SetEscapeHTML(false)
	if err := to.Encode(v); err != nil {
		return nil, err
	}
	return EscapeControls(out.Bytes()), nil
}

// EscapeControls escapes the characters that control a terminal and that JSON does not escape.
func EscapeControls(text []byte) []byte {
	if !bytes.ContainsFunc(text, isControl) {
		return text
	}
	var out []byte
	for _, r := range string(text) {
		if isControl(r) {
			out = fmt.Appendf(out, "\\u%04x", r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// isControl reports whether a character of JSON may control a terminal.
func isControl(r rune) bool { return r >= 0x7f && r < 0xa0 }

// ReadPath reads the messages of a file, or of a directory.
func ReadPath(path string) (Messages, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Messages{}, fmt.Errorf("reading messages: %w", err)
	}
	if info.IsDir() {
		return readDirectory(path, defaultLimits)
	}
	file, err := os.Open(filepath.Clean(path))
	if err != nil {
		return Messages{}, fmt.Errorf("reading messages: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	return Read(path, file)
}

// Read reads the messages of a file with a name, up to the limits. Errors name the line.
func Read(name string, in io.Reader) (Messages, error) { return readLines(name, in, defaultLimits) }

func readLines(name string, in io.Reader, most limits) (out Messages, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, most.line)
	size, n := 0, 0
	for lines.Scan() {
		n++
		text := bytes.TrimSpace(lines.Bytes())
		if n == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		if len(text) == 0 {
			continue
		}
		m, err := parseMessage(text)
		if err != nil {
			return Messages{}, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if m.ID == "" {
			m.ID = fmt.Sprintf("%s:%d", filepath.Base(name), n)
		}
		if out.addMessage(m, &size, most); out.Truncated != "" {
			return out, nil
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return Messages{}, fmt.Errorf("%s:%d: the line is longer than %d MiB: no source accepts such a message; does the file have one message per line?", name, n+1, most.line>>20)
	case err != nil:
		return Messages{}, fmt.Errorf("reading messages of %s, after line %d: %w", name, n, err)
	case len(out.All) == 0:
		return Messages{}, fmt.Errorf("%s has no message: it needs at least one line, such as {\"body\": \"...\"}; drover capture writes such a file", name)
	}
	return out, nil
}

// addMessage keeps a message, if there is room.
func (out *Messages) addMessage(m *triggers.Message, size *int, most limits) {
	*size += len(m.Body)
	switch {
	case len(out.All) == most.messages:
		out.Truncated = fmt.Sprintf("only the first %d messages are used: no more are kept in memory", most.messages)
	case *size > most.bytes && len(out.All) > 0:
		out.Truncated = fmt.Sprintf("only the first %d messages are used: more would need over %d MiB of memory", len(out.All), most.bytes>>20)
	default:
		out.All = append(out.All, m)
	}
}

func parseMessage(text []byte) (*triggers.Message, error) {
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return nil, errors.New("not text: a file of messages is JSON, one message per line. For binary bodies, put each into its own file and name their directory")
	}
	if text[0] != '{' {
		return nil, fmt.Errorf("not a message: a message is a JSON object on one line, such as {\"body\": \"...\"}. If each line is a body, convert them with jq: jq -cR '{body: .}'")
	}
	from := json.NewDecoder(bytes.NewReader(text))
	from.DisallowUnknownFields()
	var l line
	if err := from.Decode(&l); err != nil {
		return nil, explainError(err)
	}
	if _, err := from.Token(); err != io.EOF {
		return nil, errors.New("text follows the message; put each message on its own line")
	}
	if (l.Body == nil) == (l.BodyBase64 == nil) {
		return nil, errors.New("it needs either body or body_base64")
	}
	m := &triggers.Message{ID: l.ID, Subject: l.Subject, OrderingKey: l.Key, Attributes: l.Attributes, Repeated: l.Repeated, Body: l.BodyBase64, Attempt: 1}
	if len(l.Properties) > 0 {
		m.Origin = triggers.Known(l.Properties)
	}
	if l.Message != "" {
		m.ID = l.Message
	}
	if l.Body != nil {
		m.Body = []byte(*l.Body)
	}
	if l.Enqueued != nil {
		m.Enqueued = *l.Enqueued
	}
	return m, nil
}

// explainError adds to an error of JSON what to write instead.
func explainError(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "body":
		return fmt.Errorf("body is %s; it must be a string: write JSON as {\"body\": \"{\\\"id\\\": 7}\"}", withArticle(wrong.Value))
	case errors.As(err, &wrong) && strings.HasPrefix(wrong.Field, "attributes"):
		return fmt.Errorf("%s is %s; attributes must be strings, as in {\"tenant\": \"7\"}", wrong.Field, withArticle(wrong.Value))
	case errors.As(err, &wrong):
		return fmt.Errorf("%s is %s, and must be %s", wrong.Field, withArticle(wrong.Value), withArticle(wrong.Type.String()))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the object does not end on its line; a message must be one line")
	}
	if key, found := strings.CutPrefix(err.Error(), "json: unknown field "); found {
		return fmt.Errorf("a message has no key %s; it has %s. If the line is the body itself, convert it with jq: jq -cR '{body: .}'", key, validKeys)
	}
	return fmt.Errorf("invalid JSON: %w", err)
}

func withArticle(what string) string {
	if strings.ContainsRune("aeiou", rune(what[0])) {
		return "an " + what
	}
	return "a " + what
}

// readDirectory reads the files of a directory, in the order of their names. It skips hidden files,
// and entries that are not files.
func readDirectory(path string, most limits) (out Messages, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return Messages{}, fmt.Errorf("reading messages: %w", err)
	}
	size := 0
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err != nil {
			return Messages{}, fmt.Errorf("reading messages: %w", err)
		}
		if info.Size() > int64(most.line) {
			return Messages{}, fmt.Errorf("%s has %d MiB: no source accepts such a message", name, info.Size()>>20)
		}
		body, err := os.ReadFile(filepath.Clean(name))
		if err != nil {
			return Messages{}, fmt.Errorf("reading messages: %w", err)
		}
		if out.addMessage(&triggers.Message{ID: e.Name(), Body: body, Attempt: 1}, &size, most); out.Truncated != "" {
			return out, nil
		}
	}
	if len(out.All) == 0 {
		return Messages{}, fmt.Errorf("the directory %s has no file; each is the body of a message", path)
	}
	return out, nil
}
