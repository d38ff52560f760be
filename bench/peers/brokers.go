package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/bench/load"

	"github.com/drover-run/drover/bench/rig"
)

// broker is the process from which a peer receives its messages.
type broker struct {
	process *load.Process
	env     []string     // how the peer finds it
	server  *load.Server // of NATS only
}

func (b *broker) close() error {
	if b.server != nil {
		return b.server.Close()
	}
	return b.process.Close()
}

// brokerStarts start a broker by its name, in an empty directory.
var brokerStarts = map[string]func(ctx context.Context, dir string) (*broker, error){
	"nats": startNATS, "redis": startRedis, "postgres": startPostgres,
}

// startNATS makes the stream that FastStream, taskiq and Watermill make by default: of retention
// limits, on files.
func startNATS(ctx context.Context, dir string) (*broker, error) {
	server, err := load.StartServer(ctx, dir)
	if err != nil {
		return nil, err
	}
	if err := load.MakeStream(ctx, server.JS, true); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return &broker{server.Process, []string{"NATS_URL=" + server.URL}, server}, nil
}

// startRedis starts a Redis that keeps nothing on disk.
func startRedis(ctx context.Context, dir string) (*broker, error) {
	port, err := load.FreePort()
	if err != nil {
		return nil, err
	}
	process, err := load.StartProcess(ctx, dir, os.Environ(), "redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--dir", dir)
	if err != nil {
		return nil, err
	}
	b := &broker{process: process, env: []string{fmt.Sprintf("REDIS_URL=redis://127.0.0.1:%d/0", port)}}
	if err := process.WaitForPort(ctx, fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// postgresProgram finds a program of PostgreSQL, in the PATH or in Debian's directory.
func postgresProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return path, nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("%s is not installed: %w", name, exec.ErrNotFound)
	}
	return found[len(found)-1], nil
}

// startPostgres starts a PostgreSQL with its default settings. It refuses to run as root, so root
// runs it as the user postgres.
func startPostgres(ctx context.Context, dir string) (_ *broker, err error) {
	initdb, err := postgresProgram("initdb")
	if err != nil {
		return nil, err
	}
	postgres, err := postgresProgram("postgres")
	if err != nil {
		return nil, err
	}
	var as []string
	data := filepath.Join(dir, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 {
		owner, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, err := strconv.Atoi(owner.Uid)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(os.Chown(data, uid, -1), os.Chmod(dir, 0o711)); err != nil {
			return nil, err
		}
		as = []string{"setpriv", "--reuid", owner.Uid, "--regid", owner.Gid, "--clear-groups", "--"}
	}
	making, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	command := append(as, initdb, "-D", data, "-A", "trust", "-U", "bench", "-E", "UTF8", "--locale", "C") //nolint:gocritic // a new slice
	made := exec.CommandContext(making, command[0], command[1:]...)
	made.Dir = data
	if out, err := made.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := load.FreePort()
	if err != nil {
		return nil, err
	}
	command = append(as, postgres, "-D", data, "-p", strconv.Itoa(port), "-k", data, "-h", "127.0.0.1") //nolint:gocritic // a new slice
	process, err := load.StartProcess(ctx, data, os.Environ(), command[0], command[1:]...)
	if err != nil {
		return nil, err
	}
	b := &broker{process: process, env: []string{fmt.Sprintf("DATABASE_URL=postgres://bench@127.0.0.1:%d/postgres?pool_max_conns=20", port)}}
	err = process.WaitForPort(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		err = waitForRecovery(ctx, data)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// waitForRecovery waits until PostgreSQL, which listens, accepts clients: until then it refuses them. It
// writes that to postmaster.pid, where pg_ctl also reads it.
func waitForRecovery(ctx context.Context, data string) error {
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		status, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
		if err != nil || strings.Contains(string(status), "\nready") {
			return err
		}
		if err := rig.Pause(starting, 20*time.Millisecond); err != nil {
			return fmt.Errorf("PostgreSQL is not ready: %w", err)
		}
	}
}
