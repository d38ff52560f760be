package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	xterm "golang.org/x/term"
)

// Key is a key that was pressed: one of the names below, or the character that it types.
type Key string

// The keys that type no character.
const (
	KeyUp        Key = "up"
	KeyDown      Key = "down"
	KeyPageUp    Key = "page up"
	KeyPageDown  Key = "page down"
	KeyHome      Key = "home"
	KeyEnd       Key = "end"
	KeyEnter     Key = "enter"
	KeyEscape    Key = "esc"
	KeyBackspace Key = "backspace"
	KeyInterrupt Key = "ctrl-c"
	KeySuspend   Key = "ctrl-z"
	KeyRedraw    Key = "ctrl-l"
)

// sequences are the escape sequences of terminals, in normal and application mode.
var sequences = map[string]Key{
	"[A": KeyUp, "OA": KeyUp, "[B": KeyDown, "OB": KeyDown, "[5~": KeyPageUp, "[6~": KeyPageDown,
	"[H": KeyHome, "OH": KeyHome, "[1~": KeyHome, "[F": KeyEnd, "OF": KeyEnd, "[4~": KeyEnd,
}

var controls = map[byte]Key{
	'\r': KeyEnter, '\n': KeyEnter, 0x7f: KeyBackspace, '\b': KeyBackspace, 3: KeyInterrupt, 26: KeySuspend, 12: KeyRedraw,
	16: KeyUp, 14: KeyDown, // ctrl-p and ctrl-n
}

// parseKeys returns the keys in bytes that were read at once. An escape that begins no sequence is
// the escape key. Sequences of other keys are dropped.
func parseKeys(text []byte) (keys []Key) {
	for len(text) > 0 {
		if text[0] == 0x1b {
			n := sequenceLength(text[1:])
			if n == 0 {
				keys = append(keys, KeyEscape)
			} else if key, known := sequences[string(text[1:1+n])]; known {
				keys = append(keys, key)
			}
			text = text[1+n:]
			continue
		}
		if key, known := controls[text[0]]; known {
			keys, text = append(keys, key), text[1:]
			continue
		}
		r, n := utf8.DecodeRune(text)
		if r >= ' ' && r != utf8.RuneError {
			keys = append(keys, Key(text[:n]))
		}
		text = text[n:]
	}
	return keys
}

// sequenceLength returns the length of the sequence after an escape: a [ and everything up to a letter
// or ~, or an O and a letter; 0 if there is none.
func sequenceLength(text []byte) int {
	if len(text) < 2 || text[0] != '[' && text[0] != 'O' {
		return 0
	}
	for i, c := range text[1:] {
		if c >= 0x40 && c <= 0x7e {
			return i + 2
		}
	}
	return len(text)
}

// Keyboard is a terminal that passes each key immediately, without echo.
type Keyboard struct {
	file  *os.File
	saved *xterm.State
}

// OpenKeyboard changes the mode of a terminal. Close restores it.
func OpenKeyboard(file *os.File) (*Keyboard, error) {
	saved, err := xterm.MakeRaw(int(file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	return &Keyboard{file: file, saved: saved}, nil
}

// Close restores the mode of the terminal.
func (k *Keyboard) Close() error { return xterm.Restore(int(k.file.Fd()), k.saved) }

// keyPoll is how often Read checks whether its context has ended.
const keyPoll = 100 * time.Millisecond

// Read sends the keys that are pressed, until ctx ends or the terminal is gone.
func (k *Keyboard) Read(ctx context.Context, keys chan<- Key) {
	fds := []unix.PollFd{{Fd: int32(k.file.Fd()), Events: unix.POLLIN}}
	buffer := make([]byte, 256)
	for ctx.Err() == nil {
		n, err := unix.Poll(fds, int(keyPoll.Milliseconds()))
		if n == 0 || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || fds[0].Revents&unix.POLLIN == 0 {
			return
		}
		n, err = k.file.Read(buffer)
		if err != nil || n == 0 {
			return
		}
		for _, key := range parseKeys(buffer[:n]) {
			select {
			case keys <- key:
			case <-ctx.Done():
				return
			}
		}
	}
}
