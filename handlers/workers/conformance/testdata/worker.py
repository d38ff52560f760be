"""A worker for the tests of the suite, of docs/worker-protocol.md alone. Its functions are
built in. Its argument names a fault, which it has then."""

import array
import json
import os
import queue
import signal
import socket
import struct
import sys
import threading
import time

FAULT = sys.argv[1] if len(sys.argv) > 1 else ""
SMALL, LOAD_MOST, OUTCOME = 256 << 10, 8 << 20, 1 << 20

sock = socket.socket(fileno=3)
writing = threading.Lock()
state_of, cancelled, begun = {}, set(), set()
credit, granted = {}, threading.Condition()  # of the streams, by their call
waiting = queue.Queue()
running = {}  # the function of the call that a thread runs
profile = None  # the one that runs
max_frame = SMALL
can = []


def send(kind, payload):
    with writing:
        sock.sendall(struct.pack("<IB", 1 + len(payload), kind) + payload)


def send_json(kind, value):
    send(kind, json.dumps(value).encode())


def receive(n):
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            while FAULT == "stays when the socket closes":
                time.sleep(1)
            os._exit(0)
        data += more
        if FAULT == "takes a read for a frame":
            return data
    return data


def frame():
    """The next frame: its type and payload."""
    (length,) = struct.unpack("<I", receive(4))
    if length == 0 and FAULT == "skips frames of no length":
        return frame()
    if length == 0:
        sys.exit("a frame of no length")
    kind = receive(1)[0]
    most = {3: max_frame, 2: LOAD_MOST}.get(kind, SMALL)
    if length > most and FAULT != "takes any length":
        sys.exit(f"a frame of {length} bytes")
    return kind, receive(length - 1)


class Message:
    def read_meta(self, payload, at, end):
        encoding = "latin-1" if FAULT == "reads texts as Latin-1" else "utf-8"
        texts = []
        while at < end:
            (n,) = struct.unpack_from("<I", payload, at)
            texts.append(payload[at + 4 : at + 4 + n].decode(encoding, "replace"))
            at += 4 + n
        self.message_id, self.subject, self.key = texts[:3]
        pairs = list(zip(texts[3::2], texts[4::2]))
        parted = pairs.index(("", "")) if ("", "") in pairs and FAULT != "takes properties for attributes" else len(pairs)
        self.attributes, self.repeated, self.properties = {}, {}, dict(pairs[parted + 1 :])
        for name, value in pairs[:parted]:
            if name in self.attributes and FAULT != "has one value of several":
                self.repeated.setdefault(name, [self.attributes[name]]).append(value)
            self.attributes.setdefault(name, value)

    def read_of_batch(self, payload, at, origin):
        """Reads a message of a batch, and returns the offset of its end."""
        self.attempt, self.enqueued, meta = struct.unpack_from("<IqI", payload, at)
        at += 16
        if origin:
            at += 4 + struct.unpack_from("<I", payload, at)[0]
        self.read_meta(payload, at, at + meta)
        (n,) = struct.unpack_from("<I", payload, at + meta)
        at += meta + 4
        self.body = payload[at : at + n]
        return at + n


class Call(Message):
    def __init__(self, payload):
        if len(payload) < 32:
            sys.exit("a short INVOKE")
        self.id, self.function, flags, self.attempt, self.enqueued, self.deadline, meta = struct.unpack_from("<IHHIqqI", payload)
        at = 32
        self.stateful, self.state, self.set, self.about = bool(flags & 1), None, None, None
        if flags & 1:
            (n,) = struct.unpack_from("<I", payload, at)
            at += 4
            if n != 0xFFFFFFFF:
                if at + n > len(payload):
                    sys.exit("a long state")
                self.state = payload[at : at + n]
                at += n
        self.sent = None
        if flags & 2 and FAULT != "takes an origin for meta":
            at += 4 + struct.unpack_from("<I", payload, at)[0]
        if at + meta > len(payload):
            sys.exit("a long meta")
        end = at + meta
        self.batch, self.verdicts = [], None
        if flags & 4:
            (count,) = struct.unpack_from("<I", payload, end)
            at = end + 4
            for _ in range(count):
                self.batch.append(Message())
                at = self.batch[-1].read_of_batch(payload, at, flags & 2)
            if FAULT == "shuffles batches":
                self.batch.reverse()
            return
        self.read_meta(payload, at, end)
        self.body = payload[end:]
        if FAULT == "reads bodies as text":
            self.body = self.body.decode("utf-8", "replace").encode()


class Failed(Exception):
    status = 1


class Rejected(Failed):
    status = 2


class Retry(Failed):
    status = 3


def log(call, level, text):
    if "log" in can or FAULT == "logs unasked":
        for at in range(0, len(text), 10_000):
            send_json(69, {"id": call, "level": level, "logger": "worker", "text": text[at : at + 10_000]})


def run(name, c):
    if name == "echo":
        return c.body
    if name == "nothing":
        return b""
    if name == "describe":
        return json.dumps({
            "id": c.message_id, "subject": c.subject, "ordering_key": c.key, "attributes": c.attributes, "repeated": c.repeated,
            "properties": c.properties, "attempt": c.attempt,
            "enqueued_ms": c.enqueued // 1000 if c.enqueued else None, "deadline_ms": c.deadline // 1000 if c.deadline else None,
            "size": len(c.body),
        }).encode()
    if name == "output":
        c.about = {"content_type": "text/x-test", "correlation_id": c.message_id, "attribute:n": "é"}
        return c.body
    if name == "outputs":
        if c.body == b"none":
            return b""
        if c.body == b"unknown" and FAULT != "takes any output":
            raise Rejected("there is no output nobody; there are first, second, third")
        if c.body == b"state":
            c.set = (b"new",)
        about = {"content_type": "text/x-test", "correlation_id": c.message_id, "attribute:n": "é"}
        c.sent = [(0, about, c.body), (1, {}, b"1"), (1, {}, b"2")]
        return b"plain"
    if name == "stream":
        try:
            return stream(c)
        finally:
            del credit[c.id]
    if name == "batch":
        return run_batch(c)
    if name == "large":
        return b"x" * int(c.body)
    if name == "fail":
        raise Failed(c.body.decode())
    if name == "fail_large":
        raise Failed("x" * int(c.body))
    if name == "reject":
        raise Rejected(c.body.decode())
    if name == "retry":
        raise Retry(c.body.decode())
    if name == "sleep":
        end = time.monotonic() + int(c.body) / 1000
        while time.monotonic() < end and c.id not in cancelled:
            time.sleep(0.002)
        return b"slept"
    if name in ("say", "warn"):
        if FAULT != "logs after its answer":
            log(c.id, "INFO" if name == "say" else "WARNING", c.body.decode())
        return b""
    if name == "write":
        rest = c.body
        while rest:
            rest = rest[os.write(3 if FAULT == "mixes up its outputs" else 1, rest) :]
        return b""
    verb, _, rest = c.body.decode().partition(" ")
    if verb != "keep":
        c.set = (None if verb == "clear" else rest.encode(),)
    if verb == "fail":
        raise Failed("after the state was set")
    return b"none" if c.state is None else b"was " + c.state


def stream(c):
    """Sends a response in parts."""
    with granted:
        credit[c.id] = 256 << 10
    rest = 4 if c.body == b"fail" else int(c.body)
    head = json.dumps({"status": 201, "headers": [["x-test", "yes"]]}).encode()
    head, whole = struct.pack("<I", len(head)) + head, rest
    while rest:
        with granted:
            while credit[c.id] == 0 and c.id not in cancelled:
                granted.wait()
            if c.id in cancelled:
                raise Failed("cancelled")
            n = min(rest, 50_000, rest if FAULT == "needs no CREDIT" else credit[c.id])
            credit[c.id] = max(credit[c.id] - n, 0 if FAULT != "needs no CREDIT" else 1)
        send(76, struct.pack("<IB", c.id, 1 if head else 0) + head + b"x" * n)
        rest -= n
        if FAULT != "repeats its head":
            head = b""
    if c.body == b"fail":
        raise Failed("late")
    return b"x" * whole if FAULT == "sends the whole response again" else b""


def answer(c, status, took, payload):
    if 18 + len(payload) > max_frame and FAULT != "sends what is too large":
        status, payload = 1, b'{"summary": "too large"}'
    wall = int(took * (1e3 if FAULT == "measures milliseconds" else 1e6))
    number = c.id + 1 if FAULT == "answers another call" else c.id
    for _ in range(2 if FAULT == "answers twice" else 1):
        send(68, struct.pack("<IBIII", number, status, wall, 0xFFFFFFFF, 0xFFFFFFFF) + payload)


def run_batch(c):
    bodies = [m.body for m in c.batch]
    if b"throw" in bodies:
        raise Failed("thrown")
    if bodies[0] == b"whole":
        return str(len(bodies)).encode()
    outcomes = {
        b"done": (0, b""), b"reject": (2, b'{"summary": "rejected"}'), b"fail": (1, b'{"summary": "failed", "detail": ""}'),
        b"retry": (3, json.dumps({"summary": "later", "after": 60 if FAULT == "tries again when it likes" else 1.5}).encode()),
    }
    c.verdicts = [outcomes.get(body, (0, body)) for body in bodies]
    return json.dumps([
        {"id": m.message_id, "subject": m.subject, "attempt": m.attempt, "enqueued_ms": m.enqueued // 1000 if m.enqueued else None, "size": len(m.body)}
        for m in c.batch
    ]).encode()


def pairs_of(about):
    texts = [text.encode() for pair in about.items() for text in pair]
    pairs = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return struct.pack("<I", len(pairs)) + pairs


def section(sent):
    if FAULT == "shuffles outputs":
        sent = sent[::-1]
    out = b"".join(struct.pack("<H", index) + pairs_of(about) + struct.pack("<I", len(body)) + body for index, about, body in sent)
    return struct.pack("<I", len(out)) + out


def serve(functions, dropped):
    held = []
    while True:
        c = waiting.get()
        if c is None:
            return
        began, status = time.monotonic(), 0
        if c.id in cancelled:
            status, payload = 4, b""
        else:
            begun.add(c.id)
            running[threading.get_ident()] = c.function
            try:
                payload = run(functions[c.function], c)
                if dropped[c.function]:
                    payload = b""
                if c.verdicts is not None and FAULT != "forgets verdicts":
                    status = 6
                    each = b"".join(struct.pack("<BI", verdict, len(data)) + data for verdict, data in c.verdicts)
                    payload = struct.pack("<I", len(c.verdicts)) + each + b"\0" + payload
                if c.about and FAULT != "forgets properties":
                    status = 128
                    payload = pairs_of(c.about) + payload
                if c.sent and FAULT != "forgets outputs" and not (FAULT == "drops outputs" and dropped[c.function]):
                    status |= 64
                    payload = section(c.sent) + payload
                if c.set and c.stateful and FAULT != "forgets states":
                    status |= 5
                    (state,) = c.set
                    payload = (struct.pack("<I", 0xFFFFFFFF) if state is None else struct.pack("<I", len(state)) + state) + payload
            except Failed as error:
                status, text = error.status, str(error)
                if FAULT != "sends long errors":
                    text = text[:1000]
                if FAULT != "breaks lines of a summary":
                    text = text.replace("\n", " ")
                outcome = {"summary": text, "detail": "in " + functions[c.function]}
                if status == 3:
                    outcome["after"] = 60 if FAULT == "tries again when it likes" else float(text)
                payload = json.dumps(outcome).encode()
            begun.discard(c.id)
            del running[threading.get_ident()]
        if FAULT != "remembers what it cancelled":
            cancelled.discard(c.id)
        if FAULT == "swallows failures" and status == 1:
            continue
        held.append((c, status, time.monotonic() - began, payload))
        if FAULT == "holds answers back" and len(held) < 2:  # until the next one is done
            continue
        for reply in held:
            answer(*reply)
        held = []
        if FAULT == "logs after its answer" and functions[c.function] == "say":
            log(c.id, "INFO", c.body.decode())


class Profile(threading.Thread):
    """Samples the stacks of the threads that run a function, until it is stopped."""

    def __init__(self, asked):
        super().__init__(daemon=True)
        self.number, self.function, self.period = asked["profile"], asked["function"], asked["period_us"] / 1e6
        self.lines, self.stacks, self.over = {}, {}, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(self.period):
            for thread, top in sys._current_frames().items():
                if running.get(thread) == self.function:
                    stack = []
                    while top is not None and top.f_code is not serve.__code__ and len(stack) < 128:
                        code = top.f_code
                        line = (code.co_name, code.co_filename, top.f_lineno, code.co_firstlineno)
                        stack.append(self.lines.setdefault(line, len(self.lines)))
                        top = top.f_back
                    if stack:
                        self.stacks[tuple(stack)] = self.stacks.get(tuple(stack), 0) + 1

    def stop(self):
        self.over.set()
        self.join()
        for _ in range(2 if FAULT == "answers a profile twice" else 1):
            send_json(77, {
                "profile": self.number,
                "lines": [{"function": f, "file": file, "line": line, "start": start} for f, file, line, start in self.lines],
                "stacks": [{"stack": stack, "samples": n, "time_us": int(n * self.period * 1e6)} for stack, n in self.stacks.items()],
                "dropped": {"samples": 0, "time_us": 0},
            })


def sample(asked):
    """Starts or ends a profile, as PROFILE asks."""
    global profile
    if asked["period_us"] > 0:
        profile = Profile(asked)
    elif profile is not None and profile.number == asked["profile"]:
        profile.stop()
        profile = None


def end():
    if profile is not None:
        profile.stop()
    sys.stdout.flush()
    os._exit(7 if FAULT == "ends badly" else 0)


def load(text):
    l = json.loads(text)
    names = [f["name"] for f in l["functions"]]
    for f in l["functions"]:
        wrong = f["module"].endswith(("_missing", "_raises")) or f["function"] == "no_such_function"
        if wrong and FAULT != "loads anything":
            summary = f"{f['module']}.{f['function']} does not load: not today"
            send_json(67, {"summary": summary, "detail": f"Traceback: {f['module']}: not today"})
            end()
    log(-1, "INFO", "conformance: loading")
    if "imports" in can and FAULT != "names no files" or FAULT == "names files unasked":
        send_json(75, {"paths": ["worker.py" if FAULT == "names files by parts of their paths" else os.path.abspath(__file__)]})
    if FAULT == "mixes up its functions":
        names.reverse()
    send_json(66, {"functions": [{"name": n, "kind": "sync"} for n in names]})
    return [f["function"] for f in l["functions"]], [f.get("results") == "dropped" for f in l["functions"]], l["threads"]


def beat():
    """Sends ALIVE each second."""
    while True:
        time.sleep(1)
        send(73, b"")
        if FAULT == "beats once":
            return


def serve_template():
    """Forks workers as FORK asks. It returns in each."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody collects the processes between
    while True:
        fds = array.array("i")
        data, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(3 * fds.itemsize))
        for _, _, rights in ancillary:
            fds.frombytes(rights)
        if not data:
            os._exit(0)
        data += receive(4)
        kind = data[4]
        if kind == 3 and FAULT == "skips what is not due":
            receive(struct.unpack("<I", data[:4])[0] - 1)
            continue
        if kind == 5:
            end()
        if kind != 6 or len(fds) != 3:
            sys.exit(f"a frame of type {kind} with {len(fds)} files, of a template")
        told, tell = os.pipe()
        ending, ended = os.pipe()
        if os.fork() == 0:
            if become_worker(fds, tell, ending, ended):
                return
        os.close(tell)
        os.close(ending)
        os.close(ended)
        send_json(71, {"pid": int(os.read(told, 100))})
        os.close(told)
        for fd in fds:
            os.close(fd)


def become_worker(fds, tell, ending, ended):
    """The process between, and the worker, in which it returns True."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the exit status of a worker that ends first is lost
    if FAULT != "forks once" and os.fork() > 0:
        os.close(ended)
        os.read(ending, 1)
        os._exit(0)
    if FAULT != "stays in the template's group":
        os.setpgid(0, 0)
    if FAULT == "keeps the template's socket":
        os.dup(3)
    for fd, place in zip(fds, (3, 1, 2)):
        if place == 3 or FAULT != "keeps the template's outputs":
            os.dup2(fd, place)
        os.close(fd)
    os.write(tell, str(os.getpid()).encode())
    os.close(tell)
    sock.recv(1, socket.MSG_PEEK)  # HELLO: the daemon knows of us
    os.close(ended)
    return True


def greet():
    """Answers HELLO, and returns LOAD."""
    global max_frame, can
    kind, text = frame()
    if kind != 1:
        sys.exit("no HELLO")
    hello = json.loads(text)
    can = hello["capabilities"]
    if FAULT == "measures before it is ready":
        send_json(70, {"period_us": 1, "lags_us": []})
    if FAULT == "beats before it is ready":
        send(73, b"")
    version = 1 if FAULT == "speaks another protocol" else 4
    send_json(65, {"protocol": version, "pid": os.getpid(), "language": "test", "version": "1", "capabilities": ["batch", "cancel", "fork", "heartbeat", "imports", "log", "origin", "outputs", "profile", "properties", "session_state", "settings", "stream"]})
    if hello["protocol"] != 4 and FAULT != "speaks any protocol":
        end()
    max_frame = hello["max_frame"]
    kind, text = frame()
    if kind == 5:
        end()
    if kind != 2:
        sys.exit("no LOAD")
    return text


def main():
    text = greet()
    if json.loads(text).get("template"):
        load(text)
        serve_template()
        text = greet()
    functions, dropped, threads = load(text)
    pool, live = [], 0

    def resize(n):
        nonlocal live
        for _ in range(n - live):
            pool.append(threading.Thread(target=serve, args=(functions, dropped), daemon=True))
            pool[-1].start()
        for _ in range(live - n):
            waiting.put(None)
        live = n

    resize(threads)
    if "heartbeat" in can:
        threading.Thread(target=beat, daemon=True).start()
    while True:
        kind, payload = frame()
        if kind == 3:
            c = Call(payload)
            if c.function >= len(functions):
                if FAULT == "answers for unknown functions":
                    answer(c, 1, 0, b'{"summary": "what?"}')
                    continue
                sys.exit("no such function")
            cancelled.discard(c.id) if FAULT != "remembers what it cancelled" else None
            waiting.put(c)
        elif kind == 4 and len(payload) == 4:
            with granted:
                cancelled.add(struct.unpack("<I", payload)[0])
                granted.notify_all()
        elif kind == 8 and len(payload) == 8:
            call, n = struct.unpack("<II", payload)
            with granted:
                if call in credit and FAULT != "ignores CREDIT":
                    credit[call] += n
                    granted.notify_all()
        elif kind == 7:
            if FAULT != "ignores SETTINGS":
                resize(json.loads(payload)["threads"])
        elif kind == 9:
            sample(json.loads(payload))
        elif kind == 5 and FAULT == "ignores DRAIN":
            continue
        elif kind == 5:
            resize(0)

            def finish():
                for t in pool:
                    t.join()
                end()

            threading.Thread(target=finish, daemon=True).start()
        elif FAULT != "ignores what it does not know":
            sys.exit(f"a frame of type {kind}")


main()
