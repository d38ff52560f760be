package childproc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// answerLimit bounds the time in which the reaper must answer. One that takes longer hangs,
// and is killed.
const answerLimit = 30 * time.Second

// session is one reaper process, as seen from here, from its start to its end.
type session struct {
	log     *slog.Logger
	cmd     *exec.Cmd
	conn    *net.UnixConn
	marks   uint64
	said    firstWords
	reading sync.WaitGroup // of what it says, and of its standard error

	writing sync.Mutex

	mu        sync.Mutex
	next      uint64
	processes map[uint64]*Process // that were asked for, or live
	dead      bool                // it takes no more
	closing   bool                // as we said so

	ended    chan struct{} // closed when it is gone, and all of its processes
	finished sync.WaitGroup
}

// launch starts a reaper and waits until it listens.
func launch(log *slog.Logger) (*session, error) {
	self, err := Self()
	if err != nil {
		return nil, err
	}
	ours, theirs, err := Socketpair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the child has its own
	s := &session{log: log, conn: ours, marks: newMarks(), processes: make(map[uint64]*Process), ended: make(chan struct{})}
	s.cmd = &exec.Cmd{
		Path: self, Args: []string{reaperName}, Dir: "/",
		// One thread runs at a time: it has little to do.
		Env:        []string{"GOMAXPROCS=1", "GOTRACEBACK=single"},
		ExtraFiles: []*os.File{theirs},
		// A session of its own: no terminal's ^C, nor a kill of our group, is for it.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	errs, err := NewOutput(&s.said)
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	s.cmd.Stderr = errs.Child
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(explain(err), errs.Close(), ours.Close())
	}
	_ = errs.Child.Close() // the child has its own
	s.reading.Go(func() {
		_, _ = io.Copy(errs.to, errs.ours)
		_ = errs.ours.Close()
	})
	in := bufio.NewReader(s.conn)
	marked, err := s.awaitReady(in)
	if err != nil {
		_ = s.cmd.Process.Kill() // it may be gone already
		_ = s.cmd.Wait()
		s.reading.Wait()
		return nil, errors.Join(fmt.Errorf("%w: %s", err, s.said.String()), ours.Close())
	}
	if !marked {
		log.Warn("processes cannot be marked here (RLIMIT_LOCKS): those that leave their process group live until no worker does")
	}
	log.Debug("the reaper runs", "pid", s.cmd.Process.Pid)
	go s.read(in)
	return s, nil
}

// awaitReady waits for the reaper's first message. It reports whether the reaper can mark processes.
func (s *session) awaitReady(in io.Reader) (marked bool, err error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return false, err
	}
	kind, f, err := readMessage(in)
	if err != nil {
		return false, fmt.Errorf("it does not answer: %w", err)
	}
	_, marked = f.long(), f.number() == 1
	if kind != saysReady || f.end() != nil {
		return false, errMessage
	}
	return marked, s.conn.SetReadDeadline(time.Time{})
}

// readMessage reads one without file descriptors.
func readMessage(in io.Reader) (kind byte, f *fields, err error) {
	var head [headSize]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, nil, err
	}
	length, kind, _, err := parseHead(head[:])
	if err != nil {
		return 0, nil, err
	}
	rest := make([]byte, length)
	if _, err := io.ReadFull(in, rest); err != nil {
		return 0, nil, err
	}
	return kind, &fields{rest: rest}, nil
}

// over reports whether it takes no more.
func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// startProcess has the reaper start a process, and waits until it has.
func (s *session) startProcess(p *Process, path string, c Command, files []*os.File) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files for a process, where %d are the most", len(files), maxFiles)
	}
	if err := s.register(p); err != nil {
		return err
	}
	m := newMessage(saysStart, byte(len(files)), p.id).addText(path).addText(c.Name).addText(c.Dir).addTexts(c.Args).addTexts(c.Env)
	return s.ask(p, m, unix.UnixRights(descriptors(files)...))
}

// adoptProcess has the reaper take over a process that parent has forked, and waits until it has.
func (s *session) adoptProcess(p, parent *Process, pid int) error {
	if err := s.register(p); err != nil {
		return err
	}
	return s.ask(p, newMessage(saysAdopt, 0, p.id).addLong(parent.id).addNumber(uint32(pid)), nil)
}

// register gives a process its number. It fails if the reaper has ended.
func (s *session) register(p *Process) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return ErrReaperDied
	}
	s.next++
	p.id = s.marks + s.next
	s.processes[p.id] = p
	return nil
}

// ask sends a request and waits for its answer.
func (s *session) ask(p *Process, m message, rights []byte) error {
	m, err := m.whole()
	if err == nil {
		err = s.write(m, rights)
	}
	if err != nil {
		s.mu.Lock()
		delete(s.processes, p.id)
		s.mu.Unlock()
		return err
	}
	limit := time.NewTimer(answerLimit)
	defer limit.Stop()
	select {
	case err := <-p.answered:
		return err
	case <-limit.C:
		s.log.Error("the reaper hangs; it is killed", "pid", s.cmd.Process.Pid)
		_ = s.cmd.Process.Kill() // it may be gone already
		return <-p.answered
	}
}

// write sends a message: its head first, with the file descriptors.
func (s *session) write(m message, rights []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, _, err := s.conn.WriteMsgUnix(m[:headSize], rights, nil); err != nil {
		return fmt.Errorf("asking the reaper: %w", err)
	}
	if _, err := s.conn.Write(m[headSize:]); err != nil {
		return fmt.Errorf("asking the reaper: %w", err)
	}
	return nil
}

func (s *session) signal(id uint64, signal syscall.Signal) {
	if m, err := newMessage(saysSignal, 0, id).addNumber(uint32(signal)).whole(); err == nil {
		_ = s.write(m, nil) // where the reaper is dead, so are its processes
	}
}

// read takes what the reaper says until it is gone.
func (s *session) read(in io.Reader) {
	for {
		kind, f, err := readMessage(in)
		if err == nil {
			err = s.heard(kind, f)
		}
		if err != nil {
			s.reaperEnded(err)
			return
		}
	}
}

func (s *session) heard(kind byte, f *fields) error {
	id := f.long()
	s.mu.Lock()
	p := s.processes[id]
	if kind == saysRefused || kind == saysExited {
		delete(s.processes, id)
	}
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%w: of process %d, which nobody asked for", errMessage, id)
	}
	switch kind {
	case saysStarted:
		p.PID = int(f.number())
		p.answered <- f.end()
	case saysRefused:
		errno, text := f.number(), f.text()
		if errno != 0 {
			p.answered <- &refusal{text: text, errno: syscall.Errno(errno)}
		} else {
			p.answered <- errors.New(text)
		}
	case saysExited:
		var exit Exit
		if f.number() == 0 {
			exit.Err = errors.New("somebody else collected it")
		}
		exit.Status, exit.CPU, exit.MaxRSS = syscall.WaitStatus(f.number()), f.duration(), int64(f.long())
		s.finished.Go(func() { p.ended(exit) })
	default:
		return fmt.Errorf("%w: of type %d", errMessage, kind)
	}
	return f.end()
}

// refusal is what the reaper could not do, and why.
type refusal struct {
	text  string
	errno syscall.Errno
}

func (e *refusal) Error() string {
	if e.text == "" {
		return explain(e.errno).Error()
	}
	return e.text + ": " + explain(e.errno).Error()
}

func (e *refusal) Unwrap() error { return e.errno }

// reaperEnded is called when the reaper has ended, by itself or at close's request. It kills the
// processes that the reaper has left.
func (s *session) reaperEnded(why error) {
	s.mu.Lock()
	s.dead = true
	closing := s.closing
	left := s.processes
	s.processes = nil
	s.mu.Unlock()
	if !closing {
		_ = s.cmd.Process.Kill() // it may be gone already
	}
	how := s.cmd.Wait()
	s.reading.Wait()
	if !closing {
		for _, p := range left {
			if p.PID > 0 {
				_ = syscall.Kill(-p.PID, syscall.SIGKILL) // it may be gone already
			}
		}
		killMarked(s.marks)
		s.log.Error("the reaper died, and all of its processes were killed; the next start starts another",
			"pid", s.cmd.Process.Pid, "how", how, "seen", why, "stderr", s.said.String())
	}
	_ = s.conn.Close() // it was only still open on our side
	for _, p := range left {
		select {
		case p.answered <- ErrReaperDied: // it was asked for
		default:
		}
		s.finished.Go(func() { p.ended(Exit{Err: ErrReaperDied}) })
	}
	s.finished.Wait()
	close(s.ended)
}

// close has the reaper kill all its processes, and waits until it has.
func (s *session) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	_ = s.conn.CloseWrite() // fails where it is dead, which end has noticed
	<-s.ended
}

// firstWords keeps the beginning of what the reaper writes as it dies: why, and
// where. What follows is Go's stacks.
type firstWords struct {
	mu   sync.Mutex
	kept []byte
}

// maxFirstWords is how much of it, in bytes.
const maxFirstWords = 1 << 10

func (w *firstWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, p[:min(len(p), maxFirstWords-len(w.kept))]...)
	return len(p), nil
}

func (w *firstWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.kept)
}

// Socketpair is a stream socket between us and a child, which inherits theirs.
func Socketpair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // no child is forked between the calls
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket: %w", explain(err))
	}
	file := os.NewFile(uintptr(fds[0]), "child")
	theirs = os.NewFile(uintptr(fds[1]), "parent")
	conn, err := net.FileConn(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("making a socket: %w", explain(err)), theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}
