package sandbox

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/sandbox/launch"
)

// linkLocal are addresses that the sandbox blocks, and that ownNetwork has.
var linkLocal = []string{"169.254.7.7", "fe80::7", "fd00:ec2::254"}

// ownNetwork puts the test and its processes into their own network, whose loopback device has
// link-local addresses.
func ownNetwork(t *testing.T) {
	t.Helper()
	needsRoot(t)
	needsLandlock(t, launch.ConnectABI)
	runtime.LockOSThread() // the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("this needs a network namespace: %v", err)
	}
	control := func(family int, request uintptr, argument unsafe.Pointer) {
		t.Helper()
		fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != 0 {
			t.Fatal(errno)
		}
	}
	ask, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	ask.SetUint16(unix.IFF_UP)
	control(unix.AF_INET, unix.SIOCSIFFLAGS, unsafe.Pointer(ask))
	for _, text := range linkLocal {
		switch addr := netip.MustParseAddr(text); {
		case addr.Is4():
			alias, err := unix.NewIfreq("lo:1")
			if err != nil {
				t.Fatal(err)
			}
			if err := alias.SetInet4Addr(addr.AsSlice()); err != nil {
				t.Fatal(err)
			}
			control(unix.AF_INET, unix.SIOCSIFADDR, unsafe.Pointer(alias))
		default:
			in6 := struct {
				addr   [16]byte
				prefix uint32
				index  int32
			}{addr.As16(), 128, 1}
			control(unix.AF_INET6, unix.SIOCSIFADDR, unsafe.Pointer(&in6))
		}
	}
}

// server listens at an address, by TCP and UDP, and counts its clients.
func server(t *testing.T, addr string) (port int, met func() int) {
	t.Helper()
	host := addr
	if strings.HasPrefix(addr, "fe80:") {
		host += "%lo"
	}
	tcp, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	port = tcp.Addr().(*net.TCPAddr).Port
	udp, err := net.ListenPacket("udp", net.JoinHostPort(host, itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close(); udp.Close() })
	return port, func() (n int) {
		for _, socket := range []syscall.Conn{tcp.(*net.TCPListener), udp.(*net.UDPConn)} {
			raw, err := socket.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			_ = raw.Control(func(fd uintptr) { // who has connected, or sent something, is there by now
				if got, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); got > 0 {
					n++
				}
			})
		}
		return n
	}
}

const sending = helpers + `
import struct, threading, time
class iovec(ctypes.Structure): _fields_ = [('base', ctypes.c_char_p), ('len', ctypes.c_size_t)]
class mmsghdr(ctypes.Structure):
    _fields_ = [('name', ctypes.c_void_p), ('namelen', ctypes.c_uint32), ('iov', ctypes.POINTER(iovec)), ('iovlen', ctypes.c_size_t),
        ('control', ctypes.c_void_p), ('controllen', ctypes.c_size_t), ('flags', ctypes.c_int), ('pad', ctypes.c_int), ('sent', ctypes.c_uint32)]
def sockaddr(family, ip, port):
    if family == socket.AF_INET: return struct.pack('=H', family) + struct.pack('!H', port) + socket.inet_aton(ip) + bytes(8)
    return struct.pack('=H', family) + struct.pack('!HI', port, 0) + socket.inet_pton(family, ip) + struct.pack('=I', 1)
def family_of(ip): return socket.AF_INET6 if ':' in ip else socket.AF_INET
def sendmmsg(s, ip, port):
    name = ctypes.create_string_buffer(sockaddr(s.family, ip, port))
    messages = (mmsghdr * 2)(*[mmsghdr(ctypes.addressof(name), len(name) - 1, ctypes.pointer(iovec(b'hello', 5)), 1) for _ in range(2)])
    ctypes.set_errno(0)
    n = libc.sendmmsg(s.fileno(), messages, 2, 0)
    return 'done' if n == 1 and messages[0].sent == 5 else errno.errorcode[ctypes.get_errno()]
def ways(ip, port):
    'tries each way to reach an address'
    family = family_of(ip)
    to = (ip, port, 0, 1) if ip.startswith('fe80') else (ip, port)
    out = [tries(lambda: socket.socket(family).connect(to))]
    udp = lambda: socket.socket(family, socket.SOCK_DGRAM)
    out += [tries(lambda: udp().connect(to)), tries(lambda: udp().sendto(b'hello', to)), tries(lambda: udp().sendmsg([b'hel', b'lo'], [], 0, to)), sendmmsg(udp(), ip, port)]
    later = socket.socket(family); later.setblocking(False)
    out += [tries(lambda: later.connect(to)), tries(lambda: socket.socket(family).sendto(b'hello', socket.MSG_FASTOPEN, to))]
    return ' '.join(out)
`

func TestStrictBlocksLinkLocalAddresses(t *testing.T) {
	ownNetwork(t)
	for _, addr := range linkLocal {
		port, met := server(t, addr)
		code := sending + `
ip, port = os.environ['IP'], int(os.environ['PORT'])
print(ways(ip, port))
if ':' not in ip: print(ways('::ffff:' + ip, port))`
		want := strings.TrimSpace(strings.Repeat("EACCES ", 6)) + " ENOTSUP"
		if !strings.Contains(addr, ":") {
			want += "\n" + want
		}
		try := func(change func(*Settings)) ended {
			c := strict(t, change)
			c.settings.Environment.Set = map[string]string{"IP": addr, "PORT": itoa(port)}
			return runPython(t, c, code)
		}
		try(nil).wants(t, want)
		try(func(s *Settings) { s.UnixSockets = true }).wants(t, want)
		if n := met(); n > 0 {
			t.Errorf("%s was reached in %d ways", addr, n)
		}
		if got := try(func(s *Settings) { s.LinkLocal = true }).out; strings.Contains(got, "EACCES") || met() != 2 {
			t.Errorf("%s is allowed, but: %s; %d", addr, got, met())
		}
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		port, met := server(t, addr)
		c := strict(t, nil)
		c.settings.Environment.Set = map[string]string{"IP": addr, "PORT": itoa(port)}
		runPython(t, c, sending+"print(ways(os.environ['IP'], int(os.environ['PORT'])))").wants(t, "done done done done done EINPROGRESS ENOTSUP")
		if n := met(); n != 2 {
			t.Errorf("%s was reached in %d ways", addr, n)
		}
	}
}

// A thread that changes the address during a call has no effect.
func TestStrictLooksAtWhatItUses(t *testing.T) {
	ownNetwork(t)
	port, met := server(t, linkLocal[0])
	c := strict(t, nil)
	c.settings.Environment.Set = map[string]string{"PORT": itoa(port), "IP": linkLocal[0]}
	runPython(t, c, sending+`
port = int(os.environ['PORT'])
good, bad = sockaddr(socket.AF_INET, '127.0.0.1', port), sockaddr(socket.AF_INET, os.environ['IP'], port)
name, over = ctypes.create_string_buffer(good), False
def exchange():
    while not over: ctypes.memmove(name, bad, len(bad)); ctypes.memmove(name, good, len(good))
thread = threading.Thread(target=exchange); thread.start()
found = set()
for n in range(2000):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.add(libc.sendto(udp.fileno(), b'hello', 5, 0, name, len(bad)))
    found.add(libc.connect(udp.fileno(), name, len(bad)))
    libc.send(udp.fileno(), b'hello', 5, 0)
over = True; thread.join()
print(found <= {-1, 0, 5})`).wants(t, "True")
	if met() > 0 {
		t.Error("the address was reached")
	}
}

// On behalf of a worker, the daemon acts with no more rights than the worker has.
func TestStrictLendsNoRights(t *testing.T) {
	ownNetwork(t)
	c := strict(t, nil)
	path := filepath.Join(openDir(t), "socket")
	log, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	c.settings.Environment.Set = map[string]string{"SOCKET": path}
	runPython(t, c, sending+`
def netlink(kind, flags, body, send):
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    send(s, struct.pack('=IHHII', 16 + len(body), kind, flags, 1, 0) + body)
    answer = s.recv(65536)
    if struct.unpack('=H', answer[4:6])[0] != 2: return 'answer'
    code = -struct.unpack('=i', answer[16:20])[0]
    return errno.errorcode[code] if code else 'done'
address = struct.pack('=BBBBI', 2, 32, 0, 0, 1) + struct.pack('=HH4s', 8, 2, socket.inet_aton('10.1.2.3'))
for send in (lambda s, b: s.sendto(b, (0, 0)), lambda s, b: s.sendmsg([b], [], 0, (0, 0)), lambda s, b: s.send(b)):
    print(netlink(20, 5, address, send), netlink(22, 0x301, struct.pack('=B7x', 2), send))
pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]
print(tries(lambda: pair.sendto(b'x', os.environ['SOCKET'])), tries(lambda: pair.connect(os.environ['SOCKET'])))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(tries(lambda: udp.sendmsg([b'x'], [(socket.SOL_SOCKET, 36, struct.pack('=I', 7))], 0, ('127.0.0.1', 9))), # SO_MARK
    tries(lambda: udp.sendmsg([b'x'], [(0, 7, bytes([131, 7, 4, 169, 254, 7, 7, 0]))], 0, ('127.0.0.1', 9))), # IP_RETOPTS, a source route
    tries(lambda: udp.setsockopt(0, 4, bytes([131, 7, 4, 169, 254, 7, 7, 0]))), tries(lambda: udp.setsockopt(0, 1, 16)),
    tries(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).setsockopt(41, 57, bytes(24))))
print([tries(lambda: socket.socket(*what)) for what in ((2, 1, 262), (2, 1, 132), (2, 5, 0), (10, 6, 33), (16, 3, 15), (2, 1, 6), (10, 2, 17))])
`).wants(t, strings.TrimSpace(`
EPERM answer
EPERM answer
EPERM answer
EACCES EACCES
EPERM EPERM EPERM done EPERM
['EPROTONOSUPPORT', 'EPROTONOSUPPORT', 'EPROTONOSUPPORT', 'EPROTONOSUPPORT', 'EPROTONOSUPPORT', 'done', 'done']`))
}

// Waiting calls block no others, can be interrupted, and end like the kernel's own.
func TestStrictCallsThatWait(t *testing.T) {
	ownNetwork(t)
	c := strict(t, nil)
	runPython(t, c, sending+`
import asyncio, signal, concurrent.futures, array
full = socket.socket(); full.bind(('127.0.0.1', 0)); full.listen(0)
queued = [socket.socket() for _ in range(3)]
for s in queued: s.setblocking(False); tries(lambda: s.connect(full.getsockname()))
class Late(Exception): pass
def late(*_): raise Late
signal.signal(signal.SIGALRM, late)
def interrupted(do):
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try: do(); return 'done'
    except Late: return 'late'
print(interrupted(lambda: socket.socket().connect(full.getsockname())))
a, b = socket.socketpair()
print(interrupted(lambda: [a.sendmsg([bytes(1 << 20)]) for _ in range(100)]))
waits = socket.socket(); waits.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', 0, 50000))
print(tries(lambda: waits.connect(full.getsockname())), tries(lambda: socket.socket().connect(('127.0.0.1', 1))))
# they wait, and others continue
for _ in range(20): threading.Thread(target=lambda: tries(lambda: socket.socket().connect(full.getsockname())), daemon=True).start()
server = socket.create_server(('127.0.0.1', 0), backlog=1000)
def connects(_): return socket.create_connection(server.getsockname())
with concurrent.futures.ThreadPoolExecutor(50) as pool: print(len(list(pool.map(connects, range(200)))))
async def many():
    got = await asyncio.gather(*(asyncio.open_connection(*server.getsockname()) for _ in range(200)))
    return len(got)
print(asyncio.run(many()))
# all of it arrives, in order, whichever side is slow
left, right = connects(0), None
a, b = socket.socketpair()
for left, right in ((a, b), (socket.create_connection(server.getsockname()), None)):
    data = os.urandom(3 << 20)
    if right is None:
        for _ in range(402): right = server.accept()[0]
    sent = []
    thread = threading.Thread(target=lambda: sent.append(left.sendmsg([data[:100], data[100:]]))); thread.start()
    got = b''
    while len(got) < len(data): got += right.recv(65536)
    thread.join()
    print(got == data, sent == [len(data)])
# files, too, can be sent
a, b = socket.socketpair()
r, w = os.pipe()
socket.send_fds(a, [b'x'], [w, w])
_, fds, _, _ = socket.recv_fds(b, 1, 2)
os.close(w); os.write(fds[1], b'by way of another'); print(os.read(r, 100))
print(tries(lambda: a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [999]))])))
os.kill(os.getpid(), 0); sys.stdout.flush(); os._exit(0)
`).wants(t, "late\nlate\nEINPROGRESS ECONNREFUSED\n200\n200\nTrue True\nTrue True\nb'by way of another'\nEBADF")
}

func TestStrictNodeReaches(t *testing.T) {
	node := systemNode(t)
	ownNetwork(t)
	port, met := server(t, linkLocal[0])
	c := strict(t, nil)
	c.settings.Environment.Set = map[string]string{"PORT": itoa(port), "IP": linkLocal[0], "NAMES": nameServer(t)}
	run(t, c, node, "-e", `
const net = require('net'), dgram = require('dgram'), dns = require('dns'), port = Number(process.env.PORT), ip = process.env.IP;
const connect = (to, at) => new Promise(done => net.connect(at, to).on('error', e => done(e.code)).on('connect', function () { this.destroy(); done('done') }));
const send = (kind, to, at) => new Promise(done => dgram.createSocket(kind).send('hello', at, to, function (e) { this.close?.(); done(e ? e.code : 'done') }));
const names = new dns.promises.Resolver(); names.setServers([process.env.NAMES]);
(async () => {
  console.log(await connect(ip, port), await connect('::ffff:' + ip, port), await send('udp4', ip, port), await send('udp6', '::ffff:' + ip, port));
  const here = net.createServer(s => s.resume()).listen(0, '127.0.0.1', 1000, async () => {
    const all = await Promise.all(Array.from({ length: 200 }, () => connect('127.0.0.1', here.address().port)));
    console.log(all.filter(x => x === 'done').length, await send('udp4', '127.0.0.1', 9), await send('udp6', '::1', 9), await names.resolve4('app.test'));
    process.exit();
  });
})();`).wants(t, "EACCES EACCES EACCES EACCES\n200 done done [ '10.9.8.7' ]")
	if n := met(); n > 0 {
		t.Errorf("the address was reached in %d ways", n)
	}
}

// nameServer answers one query with one address.
func nameServer(t *testing.T) (addr string) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		question := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(question)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(question[:n]) != nil || len(m.Questions) == 0 {
				continue
			}
			answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true}, Questions: m.Questions, Answers: []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}, Body: &dnsmessage.AResource{A: [4]byte{10, 9, 8, 7}}}}}
			if text, err := answer.Pack(); err == nil {
				_, _ = conn.WriteTo(text, from)
			}
		}
	})
	t.Cleanup(func() { conn.Close(); serving.Wait() })
	return conn.LocalAddr().String()
}

// A daemon that may not inspect its workers, as under the seccomp profile of a container, is
// refused.
func TestStrictNeedsToSeeConnections(t *testing.T) {
	if os.Getenv(asOther) == "" {
		needsLandlock(t, launch.ConnectABI)
		cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), asOther+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 4}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_PIDFD_GETFD, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}})
	if err != nil {
		t.Fatal(err)
	}
	var code []unix.SockFilter
	for _, r := range raw {
		code = append(code, unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K})
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		t.Fatal(errno)
	}
	if err := strict(t, nil).TryLaunch(t.Context()); err == nil || !strings.Contains(err.Error(), "seccomp: to block link-local addresses the daemon must see the connections of its workers (pidfd_getfd, process_vm_readv), and that fails: connect: operation not permitted; grant it CAP_SYS_PTRACE (a container: --cap-add SYS_PTRACE), or set sandbox.link_local: true") {
		t.Errorf("%v", err)
	}
	if err := strict(t, func(s *Settings) { s.LinkLocal = true }).TryLaunch(t.Context()); err != nil {
		t.Errorf("%v", err)
	}
}
