package sandbox

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/sandbox/launch"
)

// strict is the sandbox around an app with a module.
func strict(t *testing.T, change func(*Settings)) *Confinement {
	t.Helper()
	needsLandlock(t, launch.FilesABI)
	dir := openDir(t)
	write(t, filepath.Join(dir, "app.py"), "value = 'read'\n")
	s := Settings{Dir: dir, DataDir: t.TempDir(), Strict: true}
	if change != nil {
		change(&s)
	}
	return confinement(t, s)
}

// helpers are functions for the tested code.
const helpers = `
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    'the name of the error of a system call'
    ctypes.set_errno(0)
    return 'done' if libc.syscall(number, *args) >= 0 else errno.errorcode[ctypes.get_errno()]
def tries(do):
    try:
        do(); return 'done'
    except OSError as e:
        return errno.errorcode[e.errno]
def reads(path): return tries(lambda: os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1))
def writes(path): return tries(lambda: open(path, 'ab'))
`

func TestStrictFiles(t *testing.T) {
	outside := openDir(t) // readable by all, except in the sandbox
	write(t, filepath.Join(outside, "secret"), "x")
	if err := os.Chmod(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	given := openDir(t)
	write(t, filepath.Join(given, "file"), "x")
	c := strict(t, func(s *Settings) {
		s.Read = []string{filepath.Join(given, "file")}
	})
	t.Setenv("OUTSIDE", outside)
	t.Setenv("GIVEN", given)
	c.settings.Environment.Pass = append([]string{"OUTSIDE", "GIVEN"}, StrictPass...)
	runPython(t, c, helpers+`
import app, tempfile
out, given = os.environ['OUTSIDE'], os.environ['GIVEN']
print(app.value, reads(out), reads(out + '/secret'), writes(out + '/new'), tries(lambda: os.truncate(out + '/secret', 0)), tries(lambda: os.unlink(out + '/secret')))
print(reads('/etc'), reads('/etc/shadow'), reads('/root'), reads('/etc/passwd'), reads('/proc/self/status'), reads('/proc/1/environ'))
print(reads(given), reads(given + '/file'), writes(given + '/file'), writes(app.__file__), writes('/dev/null'))
print(os.environ['TMPDIR'] == tempfile.gettempdir(), writes(os.path.join(tempfile.gettempdir(), 'x')), reads(os.path.dirname(tempfile.gettempdir())), reads(tempfile.gettempdir()))
`).wants(t, strings.TrimSpace(`
read EACCES EACCES EACCES EACCES EACCES
EACCES EACCES EACCES done done EACCES
EACCES done EACCES EACCES done
True done EACCES done`))
	if _, err := os.Stat(filepath.Join(outside, "secret")); err != nil {
		t.Error(err)
	}
}

func TestStrictWrite(t *testing.T) {
	dir := openDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	c := strict(t, func(s *Settings) { s.Write = []string{dir} })
	c.settings.Environment.Set = map[string]string{"DIR": dir}
	runPython(t, c, helpers+`
d = os.environ['DIR']
print(writes(d + '/a'), tries(lambda: os.mkdir(d + '/sub')), tries(lambda: os.rename(d + '/a', d + '/sub/b')), reads(d + '/sub/b'))`).
		wants(t, "done done done done")
	if _, err := os.Stat(filepath.Join(dir, "sub", "b")); err != nil {
		t.Error(err)
	}
}

func TestStrictSystemCalls(t *testing.T) {
	c := strict(t, nil)
	if got := runPython(t, c, "import platform; print(platform.machine())"); got.out != "x86_64" {
		t.Skipf("the numbers below are for x86_64, and this is %s", got.out)
	}
	runPython(t, c, helpers+`
ptrace, mount, chroot, unshare, setns, bpf, keyctl, reboot, clone, clone3, io_uring = 101, 165, 161, 272, 308, 321, 250, 169, 56, 435, 425
print(call(ptrace, 0, 0, 0, 0), call(mount, b'none', os.environ['TMPDIR'].encode(), b'tmpfs', 0, None), call(chroot, b'/usr'), call(reboot, 0, 0, 0, None))
print([call(unshare, flag) for flag in (0x10000000, 0x20000, 0x40000000, 0x80)], call(unshare, 0x400), call(setns, 0, 0), call(clone, 0x10000000 | 17, 0, 0, 0, 0))
print(call(bpf, 0, None, 0), call(keyctl, 0, 0, 0, 0, 0), call(clone3, None, 0), call(io_uring, 1, None))
print(call(ptrace | 0x40000000, 0, 0, 0, 0), tries(lambda: __import__('fcntl').ioctl(0, 0x5412, b'x')))
print(call(302, 0, 10, ctypes.create_string_buffer(16), None), call(302, 0, 10, None, ctypes.create_string_buffer(16)), call(302, 0, 7, None, ctypes.create_string_buffer(16)))
print([tries(lambda: socket.socket(family, socket.SOCK_DGRAM)) for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 38, 40, 17)])
print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp:'))])
`).wants(t, strings.TrimSpace(`
EPERM EPERM EPERM EPERM
['EPERM', 'EPERM', 'EPERM', 'EPERM'] done EPERM EPERM
EPERM EPERM ENOSYS ENOSYS
ENOSYS EPERM
EPERM done done
['done', 'done', 'EAFNOSUPPORT', 'EAFNOSUPPORT', 'EAFNOSUPPORT', 'EAFNOSUPPORT']
`+boundCaps()))
}

// boundCaps: a user other than root keeps a bounding set, which has no effect.
func boundCaps() string {
	none := "'0000000000000000'"
	bound := none
	if os.Geteuid() != 0 {
		text, _ := exec.Command("sh", "-c", "grep CapBnd /proc/self/status | cut -f2").Output()
		bound = "'" + strings.TrimSpace(string(text)) + "'"
	}
	return "[" + strings.Join([]string{none, none, none, bound, none, "'1'", "'2'"}, ", ") + "]"
}

func TestStrictUnixSockets(t *testing.T) {
	c := strict(t, func(s *Settings) { s.UnixSockets = true })
	runPython(t, c, helpers+`
path = os.environ['TMPDIR'] + '/s'
server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
print(tries(lambda: socket.socket(socket.AF_UNIX).connect(path)))`).wants(t, "done")
}

// A worker cannot access the processes around it, even of the same user.
func TestStrictSignals(t *testing.T) {
	needsLandlock(t, launch.ScopeABI)
	c := strict(t, nil)
	c.settings.Environment.Set = map[string]string{"PARENT": itoa(os.Getpid())}
	runPython(t, c, helpers+`
import signal, subprocess
child = subprocess.Popen(['sleep', '1000'])
print(tries(lambda: os.kill(int(os.environ['PARENT']), 0)), tries(lambda: child.kill()), child.wait())`).wants(t, "EPERM done -9")
}

func TestStrictConnect(t *testing.T) {
	needsLandlock(t, launch.ConnectABI)
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	code := helpers + `
for port in os.environ['PORTS'].split():
    print(tries(lambda: socket.create_connection(('127.0.0.1', int(port)))))`
	for _, x := range []struct {
		connect []int
		want    string
	}{
		{nil, "done\ndone"}, {[]int{ports[0]}, "done\nEACCES"}, {[]int{}, "EACCES\nEACCES"},
	} {
		c := strict(t, func(s *Settings) { s.Connect = x.connect })
		c.settings.Environment.Set = map[string]string{"PORTS": itoa(ports[0]) + " " + itoa(ports[1])}
		runPython(t, c, code).wants(t, x.want)
		eventually(t, func() bool { // nobody waits for calls of processes that have ended
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.listeners) == 0
		})
	}
}

// The sandbox can run real programs, with threads, children, sockets, TLS and name resolution.
func TestStrictLetsProgramsBe(t *testing.T) {
	c := strict(t, nil)
	runPython(t, c, `
import asyncio, concurrent.futures, hashlib, json, locale, os, pathlib, pwd, random, secrets, socket, sqlite3, ssl, subprocess, sys, tempfile, threading, time, uuid, zoneinfo
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert sum(pool.map(int, range(100))) == 4950
assert subprocess.run(['sh', '-c', 'echo a | cat'], capture_output=True, check=True).stdout == b'a\n'
assert subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True, check=True).stdout == b'1\n'
pid = os.fork()
if pid == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert len(ssl.create_default_context().get_ca_certs()) > 0 or not os.path.exists('/etc/ssl/certs/ca-certificates.crt')
async def served():
    async def echo(r, w):
        w.write(await r.readline()); await w.drain(); w.close()
    server = await asyncio.start_server(echo, '127.0.0.1', 0)
    r, w = await asyncio.open_connection(*server.sockets[0].getsockname())
    w.write(b'hello\n'); assert await r.readline() == b'hello\n'
    w.close(); server.close()
    child = await asyncio.create_subprocess_exec('cat', stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert (await child.communicate(b'x'))[0] == b'x'
asyncio.run(served())
assert socket.getaddrinfo('localhost', 80)
with tempfile.NamedTemporaryFile() as f:
    db = sqlite3.connect(f.name); db.execute('create table t (x)'); db.execute('insert into t values (1)'); db.commit()
assert pwd.getpwuid(0).pw_name == 'root' and os.cpu_count() > 0 and uuid.uuid4() and secrets.token_bytes(8)
print('well')`).wants(t, "well")
}

// systemNode is a Node.js that all users can read.
func systemNode(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/usr/bin/node", "/usr/local/bin/node"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("this needs Node.js, installed for all")
	return ""
}

func TestStrictNode(t *testing.T) {
	node := systemNode(t)
	c := strict(t, nil)
	run(t, c, node, "-e", `
const { execFileSync, spawn } = require('child_process'), fs = require('fs'), net = require('net'), os = require('os'), path = require('path'), { Worker } = require('worker_threads');
if (execFileSync('sh', ['-c', 'echo a']).toString() !== 'a\n') throw new Error('child');
fs.writeFileSync(path.join(os.tmpdir(), 'x'), 'y');
let refused; try { fs.readdirSync('/root') } catch (e) { refused = e.code }
const server = net.createServer(s => s.end('hi')).listen(0, '127.0.0.1', () => net.connect(server.address().port, '127.0.0.1').on('data', d => {
  server.close();
  new Worker('require("worker_threads").parentPort.postMessage(1)', { eval: true }).on('message', m =>
    spawn('true').on('exit', code => require('dns').lookup('localhost', (e, a) => console.log(refused, String(d), m, code, e === null))));
}));`).wants(t, "EACCES hi 1 0 true")
}

func TestStrictWithAUser(t *testing.T) {
	someUser(t)
	c := strict(t, func(s *Settings) { s.User = "nobody" })
	runPython(t, c, helpers+`
import app
print(os.getuid(), app.value, writes(os.environ['TMPDIR'] + '/x'), reads('/root'), call(165, b'none', b'/usr', b'tmpfs', 0, None))`).wants(t, "65534 read done EACCES EPERM")
}
