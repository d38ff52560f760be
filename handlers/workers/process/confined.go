package process

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/sandbox"
)

// Command is the command of a worker process. Its environment is exactly Env.
type Command struct {
	Path string
	Args []string
	Dir  string
	Env  []string
}

// confineCommand wraps a command that restricts itself before it runs. It inherits files as
// descriptors from 3 on. The box is nil without a confinement.
func confineCommand(own Command, to *sandbox.Confinement, files ...*os.File) (c childproc.Command, box *sandbox.Box, err error) {
	c = childproc.Command{Path: own.Path, Args: own.Args, Dir: own.Dir, Env: own.Env, Files: files}
	if to == nil {
		return c, nil, nil
	}
	if box, err = to.NewBox(); err != nil {
		return c, nil, err
	}
	c.Path, c.Name, c.Args = box.WrapCommand(3+len(files), own.Path, own.Args)
	c.Env = box.AddTemporary(own.Env)
	if socket := box.ChildSocket(); socket != nil {
		c.Files = append(c.Files, socket)
	}
	return c, box, nil
}

// temporaryEvery is the interval in which a worker's temporary directory is measured. After a long
// measurement, the pause is temporaryShare times its duration.
const (
	temporaryEvery = time.Second
	temporaryShare = 20
)

// boundTemporary kills the process when its temporary directory exceeds its limit. It returns when
// the process has ended, or at once if there is no limit.
func (p *Process) boundTemporary() {
	box := p.box
	if box == nil || box.TemporaryLimit() == 0 {
		return
	}
	limit := box.TemporaryLimit()
	for pause := temporaryEvery; ; {
		select {
		case <-p.Done():
			return
		case <-time.After(pause):
		}
		began := time.Now()
		used, err := box.MeasureDisk()
		pause = max(temporaryEvery, temporaryShare*time.Since(began))
		switch {
		case err != nil:
			p.excess = "its temporary directory cannot be measured: " + err.Error()
		case used > limit:
			p.excess = fmt.Sprintf("its temporary directory holds %s; sandbox.temporary allows %s", inMiB(uint64(used)), inMiB(uint64(limit)))
		default:
			continue
		}
		p.Signal(syscall.SIGKILL)
		return
	}
}

// explainEnd explains how a process ended if its sandbox has more information than the exit status.
func (p *Process) explainEnd() {
	box := p.box
	if box == nil {
		return
	}
	if p.excess != "" {
		p.state, p.cause = p.excess, CauseFiles
		return
	}
	if box.OutOfMemory() {
		p.state, p.cause = "it reached limits.memory, and the kernel killed it", CauseOOM
		return
	}
	err := box.LaunchError()
	if err != nil && (p.cause == CauseExit || !errors.Is(err, sandbox.ErrNoReport)) {
		p.state, p.cause = "it could not be held to what it should: "+err.Error(), CauseConfine
	}
}

// closeBox removes what belonged only to a process.
func closeBox(box *sandbox.Box) error {
	if box == nil {
		return nil
	}
	return box.Close()
}
