package send

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers"
)

// kept is a sender that keeps the bodies, up to a number of messages that it accepts.
type kept struct {
	bodies []string
	most   int
}

var errFull = errors.New("the server is full")

func (k *kept) Send(_ context.Context, m *triggers.Message) error {
	if len(k.bodies) == k.most {
		return errFull
	}
	k.bodies = append(k.bodies, string(m.Body))
	return nil
}

func (k *kept) Flush(context.Context) error { return nil }
func (k *kept) ConfirmedCount() int64       { return int64(len(k.bodies)) }

func message(body []byte) *triggers.Message { return &triggers.Message{Body: body} }

func TestBatches(t *testing.T) {
	body, file := "text", filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		batch Batch
		want  []string
	}{
		"a body":                     {Batch{Body: &body}, []string{"text"}},
		"a body, repeatedly":         {Batch{Body: &body, Count: times(3)}, []string{"text", "text", "text"}},
		"a body, never":              {Batch{Body: &body, Count: times(0)}, nil},
		"a whole file":               {Batch{File: file}, []string{"one\ntwo\n"}},
		"a whole file, twice":        {Batch{File: file, Count: times(2)}, []string{"one\ntwo\n", "one\ntwo\n"}},
		"standard input as a file":   {Batch{File: "-", In: strings.NewReader("a\nb")}, []string{"a\nb"}},
		"numbers":                    {Batch{Count: times(3)}, []string{"1", "2", "3"}},
		"no numbers":                 {Batch{Count: times(0)}, nil},
		"a whole file, never":        {Batch{File: file, Count: times(0)}, nil},
		"no lines":                   {Batch{Lines: file, Count: times(0)}, nil},
		"lines":                      {Batch{Lines: file}, []string{"one", "two"}},
		"some lines":                 {Batch{Lines: file, Count: times(1)}, []string{"one"}},
		"lines, repeatedly":          {Batch{Lines: file, Count: times(5)}, []string{"one", "two", "one", "two", "one"}},
		"lines of standard input":    {Batch{In: strings.NewReader("a\n\nb")}, []string{"a", "", "b"}},
		"lines of standard input, -": {Batch{Lines: "-", In: strings.NewReader("a\n"), Count: times(2)}, []string{"a", "a"}},
	} {
		to := &kept{most: 100}
		n, err := c.batch.SendTo(t.Context(), to, message)
		if err != nil || !slices.Equal(to.bodies, c.want) || n != int64(len(c.want)) {
			t.Errorf("%s: %q, %d accepted, %v; want %q", name, to.bodies, n, err, c.want)
		}
	}
}

// What fails is reported with the number of messages that were accepted before.
func TestBatchesThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		batch    Batch
		accepted int64
		want     string
	}{
		"a full server": {Batch{Count: times(9)}, 4, errFull.Error()},
		"no lines":      {Batch{In: strings.NewReader("")}, 0, "the input has no line"},
		"no file":       {Batch{File: "/nowhere/at-all"}, 0, "reading the body: "},
		"no lines file": {Batch{Lines: "/nowhere/at-all"}, 0, "reading messages: "},
		"a long line":   {Batch{In: strings.NewReader("a\n" + strings.Repeat("x", MaxBody+1))}, 1, "reading messages, after line 1: "},
	} {
		to := &kept{most: 4}
		if n, err := c.batch.SendTo(t.Context(), to, message); err == nil || !strings.Contains(err.Error(), c.want) || n != c.accepted {
			t.Errorf("%s: %d accepted, %v; want %d, %s", name, n, err, c.accepted, c.want)
		}
	}
	if _, err := ReadBody("-", strings.NewReader("12345"), 4); err == nil || !strings.Contains(err.Error(), "the body in - is larger than 4B") {
		t.Errorf("a body over the limit: %v", err)
	}
}

func times(n int) *int { return &n }
