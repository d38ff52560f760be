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

// answerLimit bounds the time of the reaper's response. A reaper that takes longer hangs,
// and is killed.
const answerLimit = 30 * time.Second

// session is the daemon's side of one reaper process, from its start to its end.
type session struct {
	log      *slog.Logger
	cmd      *exec.Cmd
	conn     *net.UnixConn
	markBase uint64
	stderr   headBuffer
	reading  sync.WaitGroup // goroutines that read its messages and its standard error

	writing sync.Mutex

	mu        sync.Mutex
	next      uint64
	processes map[uint64]*Process // requested or running
	dead      bool                // it accepts no more requests
	closing   bool                // close was called

	ended    chan struct{} // closed when the reaper and all of its processes have ended
	finished sync.WaitGroup
}

// startReaper starts a reaper and waits until it is ready.
func startReaper(log *slog.Logger) (*session, error) {
	self, err := SelfPath()
	if err != nil {
		return nil, err
	}
	ours, theirs, err := Socketpair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the child has a copy
	s := &session{log: log, conn: ours, markBase: newMarks(), processes: make(map[uint64]*Process), ended: make(chan struct{})}
	s.cmd = &exec.Cmd{
		Path: self, Args: []string{reaperName}, Dir: "/",
		// One thread at a time is enough, because it has little to do.
		Env:        []string{"GOMAXPROCS=1", "GOTRACEBACK=single"},
		ExtraFiles: []*os.File{theirs},
		// Its own session, so that neither ^C of a terminal nor a kill of the daemon's group
		// reaches it.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	errs, err := NewOutput(&s.stderr)
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	s.cmd.Stderr = errs.Child
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(withAdvice(err), errs.Close(), ours.Close())
	}
	_ = errs.Child.Close() // the child has a copy
	s.reading.Go(func() {
		_, _ = io.Copy(errs.to, errs.ours)
		_ = errs.ours.Close()
	})
	in := bufio.NewReader(s.conn)
	marked, err := s.awaitReady(in)
	if err != nil {
		_ = s.cmd.Process.Kill() // it may have ended already
		_ = s.cmd.Wait()
		s.reading.Wait()
		return nil, errors.Join(fmt.Errorf("%w: %s", err, s.stderr.String()), ours.Close())
	}
	if !marked {
		log.Warn("processes cannot be marked here (RLIMIT_LOCKS): processes that leave their process group run until the last worker ends")
	}
	log.Debug("the reaper runs", "pid", s.cmd.Process.Pid)
	go s.readMessages(in)
	return s, nil
}

// awaitReady waits for the reaper's first message. It returns whether the reaper can mark processes.
func (s *session) awaitReady(in io.Reader) (marked bool, err error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return false, err
	}
	kind, f, err := readMessage(in)
	if err != nil {
		return false, fmt.Errorf("it does not answer: %w", err)
	}
	_, marked = f.readUint64(), f.readUint32() == 1
	if kind != kindReady || f.checkEnd() != nil {
		return false, errMessage
	}
	return marked, s.conn.SetReadDeadline(time.Time{})
}

// readMessage reads a message without file descriptors.
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

// isDead reports whether the reaper accepts no more requests.
func (s *session) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// startProcess requests the start of a process, and waits for the result.
func (s *session) startProcess(p *Process, path string, c Command, files []*os.File) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files for a process, where %d are the most", len(files), maxFiles)
	}
	if err := s.addProcess(p); err != nil {
		return err
	}
	m := newMessage(kindStart, byte(len(files)), p.id).addString(path).addString(c.Name).addString(c.Dir).addStrings(c.Args).addStrings(c.Env)
	return s.roundTrip(p, m, unix.UnixRights(inheritableFDs(files)...))
}

// adoptProcess requests the adoption of a process that parent has forked, and waits for the result.
func (s *session) adoptProcess(p, parent *Process, pid int) error {
	if err := s.addProcess(p); err != nil {
		return err
	}
	return s.roundTrip(p, newMessage(kindAdopt, 0, p.id).addUint64(parent.id).addUint32(uint32(pid)), nil)
}

// addProcess assigns a number to a process. It fails if the reaper has ended.
func (s *session) addProcess(p *Process) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return ErrReaperDied
	}
	s.next++
	p.id = s.markBase + s.next
	s.processes[p.id] = p
	return nil
}

// roundTrip sends a request and waits for the response.
func (s *session) roundTrip(p *Process, m message, rights []byte) error {
	m, err := m.withLength()
	if err == nil {
		err = s.writeMessage(m, rights)
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
		_ = s.cmd.Process.Kill() // it may have ended already
		return <-p.answered
	}
}

// writeMessage sends a message: first its head, with the file descriptors.
func (s *session) writeMessage(m message, rights []byte) error {
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

func (s *session) sendSignal(id uint64, signal syscall.Signal) {
	if m, err := newMessage(kindSignal, 0, id).addUint32(uint32(signal)).withLength(); err == nil {
		_ = s.writeMessage(m, nil) // if the reaper is dead, so are its processes
	}
}

// readMessages handles the reaper's messages until it ends.
func (s *session) readMessages(in io.Reader) {
	for {
		kind, f, err := readMessage(in)
		if err == nil {
			err = s.handleMessage(kind, f)
		}
		if err != nil {
			s.reaperEnded(err)
			return
		}
	}
}

func (s *session) handleMessage(kind byte, f *fields) error {
	id := f.readUint64()
	s.mu.Lock()
	p := s.processes[id]
	if kind == kindRefused || kind == kindExited {
		delete(s.processes, id)
	}
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%w: of process %d, which nobody asked for", errMessage, id)
	}
	switch kind {
	case kindStarted:
		p.PID = int(f.readUint32())
		p.answered <- f.checkEnd()
	case kindRefused:
		errno, text := f.readUint32(), f.readString()
		if errno != 0 {
			p.answered <- &refusal{text: text, errno: syscall.Errno(errno)}
		} else {
			p.answered <- errors.New(text)
		}
	case kindExited:
		var exit Exit
		if f.readUint32() == 0 {
			exit.Err = errors.New("somebody else collected it")
		}
		exit.Status, exit.CPU, exit.MaxRSS = syscall.WaitStatus(f.readUint32()), f.readDuration(), int64(f.readUint64())
		s.finished.Go(func() { p.recordExit(exit) })
	default:
		return fmt.Errorf("%w: of type %d", errMessage, kind)
	}
	return f.checkEnd()
}

// refusal is the reaper's response to a request that failed, with the reason.
type refusal struct {
	text  string
	errno syscall.Errno
}

func (e *refusal) Error() string {
	if e.text == "" {
		return withAdvice(e.errno).Error()
	}
	return e.text + ": " + withAdvice(e.errno).Error()
}

func (e *refusal) Unwrap() error { return e.errno }

// reaperEnded is called when the reaper has ended, by itself or because of close. It kills the
// remaining processes.
func (s *session) reaperEnded(why error) {
	s.mu.Lock()
	s.dead = true
	closing := s.closing
	left := s.processes
	s.processes = nil
	s.mu.Unlock()
	if !closing {
		_ = s.cmd.Process.Kill() // it may have ended already
	}
	how := s.cmd.Wait()
	s.reading.Wait()
	if !closing {
		for _, p := range left {
			if p.PID > 0 {
				_ = syscall.Kill(-p.PID, syscall.SIGKILL) // it may have ended already
			}
		}
		killMarked(s.markBase)
		s.log.Error("the reaper died, and all of its processes were killed; the next start starts another",
			"pid", s.cmd.Process.Pid, "how", how, "seen", why, "stderr", s.stderr.String())
	}
	_ = s.conn.Close() // the reaper's side is already closed
	for _, p := range left {
		select {
		case p.answered <- ErrReaperDied: // it was still waiting for the start
		default:
		}
		s.finished.Go(func() { p.recordExit(Exit{Err: ErrReaperDied}) })
	}
	s.finished.Wait()
	close(s.ended)
}

// close makes the reaper kill all its processes, and waits until they have ended.
func (s *session) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	_ = s.conn.CloseWrite() // fails if the reaper is dead, which reaperEnded handles
	<-s.ended
}

// headBuffer keeps the beginning of the output of a dying reaper: the cause and the place. Go's
// stacks follow.
type headBuffer struct {
	mu   sync.Mutex
	kept []byte
}

// maxFirstWords bounds the kept output, in bytes.
const maxFirstWords = 1 << 10

func (w *headBuffer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, p[:min(len(p), maxFirstWords-len(w.kept))]...)
	return len(p), nil
}

func (w *headBuffer) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.kept)
}
