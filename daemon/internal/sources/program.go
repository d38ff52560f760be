package sources

import (
	"context"
	"errors"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/triggers"
)

// errOfProgram is the error of opening a trigger of the program. The daemon uses such a trigger without
// opening it.
var errOfProgram = errors.New("its trigger is in the program (daemon.WithTrigger), and nothing else can receive from it: several instances cannot share it, and commands cannot read it")

// ofProgramText explains, as a predicate of a function, why other programs cannot access its messages.
const ofProgramText = "has a trigger of the program, and only the program can send to it and read it"

// programs are the triggers of a Go program. They have neither outputs nor connections.
type programs struct{}

func (programs) sourceOf(t configs.Trigger) source {
	if !t.Program {
		return nil
	}
	return programSource{}
}

func (programs) outputOf(configs.Output) output { return nil }

func (programs) connectionOf(Config, string) connection { return nil }

type programSource struct{}

func (programSource) messageTraits() Traits {
	return Traits{CannotSend: ofProgramText, CannotPeek: ofProgramText}
}

func (programSource) openTrigger(context.Context, *Set, TriggerConfig) (triggers.Trigger, error) {
	return nil, errOfProgram
}

func (programSource) openPeeker(context.Context, Config) (triggers.Peeker, func() error, error) {
	return nil, nil, errOfProgram
}

func (programSource) openDeadLetters(context.Context, Config, bool) (triggers.DeadLetters, func() error, error) {
	return nil, nil, errOfProgram
}
