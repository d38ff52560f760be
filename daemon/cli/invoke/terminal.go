package invoke

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"
)

// Terminal is the terminal of this process, for a function that is debugged.
type Terminal struct {
	*os.File
	state *term.State // before the debugger changes it
}

// OpenTerminal opens the terminal of this process, whatever its standard streams are.
func OpenTerminal() (*Terminal, error) {
	file, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("--debug needs a terminal (%w): run it in one (docker run -it, kubectl exec -it), or use an editor's debugger (docs/debugging.md)", err)
	}
	state, err := term.GetState(int(file.Fd()))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the settings of the terminal: %w", err), file.Close())
	}
	return &Terminal{file, state}, nil
}

// Close restores the settings of the terminal: a killed debugger leaves it without echo.
func (t *Terminal) Close() error {
	return errors.Join(term.Restore(int(t.Fd()), t.state), t.File.Close())
}
