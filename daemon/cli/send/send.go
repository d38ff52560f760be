// Package send reads the bodies of `drover send` and sends them, and reads the body of
// `drover invoke`.
package send

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/triggers"
)

// MaxBody bounds a line of input, and a whole file that is one message, in bytes: no
// server takes a larger message.
const MaxBody = 64 << 20

// Batch is what to send: Body or else File, Count times or once. Without either, it is each line
// of Lines: once, or repeatedly up to Count lines. If there is only a Count, the bodies are the
// numbers from 1 to Count. A Count of 0 sends nothing.
type Batch struct {
	Body  *string
	File  string // a path, or - for In
	Lines string // likewise; empty is In, too
	Count *int   // nil is no limit

	In       io.Reader
	Progress io.Writer // a terminal for a progress bar, or nil
	Palette  term.Palette
}

// SendTo sends the messages that newMessage makes of the bodies, and returns how many of them the
// server has accepted.
func (b *Batch) SendTo(ctx context.Context, sender dispatch.Sender, newMessage func(body []byte) *triggers.Message) (int64, error) {
	progress := func() {}
	if b.Progress != nil {
		total := int64(0) // unknown
		if b.Count != nil {
			total = int64(*b.Count)
		}
		bar := live.NewProgress(b.Progress, b.Palette, "sending", total)
		defer bar.Remove()
		progress = func() { bar.Add(1) }
	}
	for body, err := range b.readBodies() {
		if err != nil {
			return sender.ConfirmedCount(), errors.Join(err, sender.Flush(ctx))
		}
		if err := sender.Send(ctx, newMessage(body)); err != nil {
			return sender.ConfirmedCount(), errors.Join(err, sender.Flush(ctx))
		}
		progress()
	}
	err := sender.Flush(ctx)
	return sender.ConfirmedCount(), err
}

// readBodies yields the messages to send.
func (b *Batch) readBodies() iter.Seq2[[]byte, error] {
	count := 1
	if b.Count != nil {
		count = *b.Count
	}
	switch {
	case count == 0:
		return func(func([]byte, error) bool) {}
	case b.Body != nil:
		return generateBodies(count, func(int) []byte { return []byte(*b.Body) })
	case b.File != "":
		return b.repeatFile(count)
	case b.Lines == "" && b.Count != nil:
		return generateBodies(count, func(n int) []byte { return fmt.Append(nil, n) })
	}
	return func(yield func([]byte, error) bool) {
		in, done, err := openInput(b.Lines, b.In)
		if err != nil {
			yield(nil, fmt.Errorf("reading messages: %w", err))
			return
		}
		defer done()
		if b.Count == nil {
			count = 0
		}
		yieldLines(in, count, yield)
	}
}

// repeatFile yields File as the body of each of count messages.
func (b *Batch) repeatFile(count int) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		body, err := ReadBody(b.File, b.In, MaxBody)
		if err != nil {
			yield(nil, err)
			return
		}
		generateBodies(count, func(int) []byte { return body })(yield)
	}
}

// openInput opens a file to read, or returns stdin for - and for the empty name. The caller
// calls done.
func openInput(name string, stdin io.Reader) (in io.Reader, done func(), err error) {
	if name == "" || name == "-" {
		return stdin, func() {}, nil
	}
	file, err := os.Open(filepath.Clean(name))
	if err != nil {
		return nil, nil, err
	}
	return file, func() { _ = file.Close() }, nil // it was only read
}

// ReadBody returns a whole file, or all of stdin for -. A file of more than limit bytes is
// an error.
func ReadBody(name string, stdin io.Reader, limit int64) ([]byte, error) {
	in, done, err := openInput(name, stdin)
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	defer done()
	body, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("the body in %s is larger than %v; no source accepts it", name, configs.Size(limit))
	}
	return body, nil
}

func generateBodies(count int, body func(n int) []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for n := range count {
			if !yield(body(n+1), nil) {
				return
			}
		}
	}
}

// yieldLines yields the lines of in: each once, or repeatedly up to count if that is not 0.
func yieldLines(in io.Reader, count int, yield func([]byte, error) bool) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, MaxBody)
	var kept [][]byte
	n := 0
	for lines.Scan() {
		line := slices.Clone(lines.Bytes())
		if count > 0 {
			kept = append(kept, line)
		}
		if n++; !yield(line, nil) || n == count {
			return
		}
	}
	if err := lines.Err(); err != nil {
		yield(nil, fmt.Errorf("reading messages, after line %d: %w", n, err))
		return
	}
	if n == 0 {
		yield(nil, errors.New("nothing to send: the input has no line"))
		return
	}
	for ; n < count; n++ {
		if !yield(kept[n%len(kept)], nil) {
			return
		}
	}
}
