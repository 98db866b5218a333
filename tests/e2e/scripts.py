"""Programs that attackers run inside their containers. Each prints one line of JSON."""

from __future__ import annotations

#: System calls, sockets and files of the kernel that lead out of a container: what became of each.
SURFACE = r"""
import ctypes, errno, json, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def call(name, function):
    try:
        result = function()
        found[name] = "allowed" if result is None else str(result)
    except (OSError, ValueError, AttributeError) as error:
        found[name] = "refused"
def system(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), str(number))
CALLS = {
    "unshare cgroup": (272, 0x2000000), "unshare ipc": (272, 0x8000000), "unshare uts": (272, 0x4000000),
    "unshare time": (272, 0x80), "unshare everything": (272, 0x7E020000), "umount": (166, b"/proc", 2),
    "pivot_root": (155, b"/", b"/"), "chroot": (161, b"/tmp"), "open_tree": (428, -100, b"/", 1),
    "move_mount": (429, -100, b"/", -100, b"/tmp", 0), "fsopen": (430, b"tmpfs", 0), "add_key": (248, b"user", b"a", b"b", 1, -2),
    "request_key": (249, b"user", b"a", 0, 0), "process_vm_readv": (310, 1, 0, 0, 0, 0, 0), "pidfd_getfd": (438, 0, 0, 0),
    "userfaultfd": (323, 0), "perf_event_open": (298, 0, 0, -1, -1, 0), "kexec": (246, 0, 0, 0, 0),
    "init_module": (175, 0, 0, b""), "finit_module": (313, 0, b"", 0), "delete_module": (176, b"veth", 0),
    "swapon": (167, b"/tmp/x", 0), "reboot": (169, 0xfee1dead, 672274793, 0x89abcdef), "settimeofday": (164, 0, 0),
    "acct": (163, 0), "quotactl": (179, 0, 0, 0, 0), "io_uring_register": (427, 0, 0, 0, 0), "fanotify": (300, 0, 0),
    "open by handle": (304, -100, 0, 0), "personality": (135, 0x0400000), "kcmp": (312, 1, 1, 0, 0, 0), "vhangup": (153,),
    "iopl": (172, 3), "ioperm": (173, 0x80, 1, 1), "kernel log": (103, 3, 0, 0), "clock": (227, 0, b"\0" * 16),
    "host name": (170, b"x", 1), "lookup_dcookie": (212, 0, 0, 0), "clone3": (435, b"\0" * 64, 64), "bpf program": (321, 5, b"\0" * 120, 120),
}
for name, arguments in CALLS.items():
    call(name, lambda: system(*arguments))
# Netlink that changes something; reading routes is what getaddrinfo does.
def route(kind, body, flags=0x405):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.settimeout(2)
        link.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        answer = link.recv(4096)
        code = struct.unpack_from("=i", answer, 16)[0] if struct.unpack_from("=H", answer, 4)[0] == 2 else 0
        if code:
            raise OSError(-code, "netlink")
address = struct.pack("=BBBBI", 2, 32, 0, 0, 2) + struct.pack("=HH4s", 8, 2, bytes([10, 1, 2, 3]))
call("netlink address", lambda: route(20, address))
call("netlink route", lambda: route(24, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 0, 1, 0) + struct.pack("=HHI", 8, 4, 2)))
call("netlink route gone", lambda: route(25, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 0, 0, 0, 0), 5))
call("netlink neighbour", lambda: route(28, struct.pack("=BBHiHBB", 2, 0, 0, 2, 0x80, 0, 0) + struct.pack("=HH4s", 8, 1, bytes([169, 254, 1, 1]))))
call("netlink rule", lambda: route(32, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 0, 0, 1, 0)))
call("netlink link", lambda: route(16, struct.pack("=BBHiII", 0, 0, 0, 2, 0, 1)))
for name, number in (("diag", 4), ("xfrm", 6), ("audit", 9), ("connector", 11), ("netfilter", 12), ("events", 15), ("generic", 16)):
    call("netlink " + name, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, number).close())
for name, family in (("key", 15), ("rds", 21), ("can", 29), ("tipc", 30), ("alg", 38), ("vsock", 40), ("xdp", 44), ("packet", 17), ("bluetooth", 31), ("pppox", 24), ("llc", 26), ("x25", 9), ("ax25", 3), ("smc", 43), ("qipcrtr", 42)):
    call("family " + name, lambda: socket.socket(family, socket.SOCK_DGRAM, 0).close())
    call("family " + name + " raw", lambda: socket.socket(family, socket.SOCK_RAW, 0).close())
    call("family " + name + " stream", lambda: socket.socket(family, socket.SOCK_STREAM, 0).close())
for name, protocol in (("icmp", 1), ("icmp6", 58), ("everything", 255), ("gre", 47), ("sctp", 132)):
    call("raw " + name, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol).close())
    call("raw6 " + name, lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, protocol).close())
for name, level, option in (("transparent", 0, 19), ("transparent6", 41, 75), ("mark", 1, 36), ("bind to device of loopback", 1, 25), ("filter of netfilter", 0, 64), ("filter of netfilter6", 41, 64), ("multicast router", 0, 200), ("header included", 0, 3), ("policy of ipsec", 0, 16), ("forced buffer", 1, 32), ("protocol of the stack", 6, 31)):
    value = struct.pack("i", 1) if name != "bind to device of loopback" else b"eth9\0"
    call("option " + name, lambda: socket.socket(socket.AF_INET6 if level == 41 else socket.AF_INET).setsockopt(level, option, value))
WRITES = ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ping_group_range", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv4/conf/eth0/rp_filter",
    "/proc/sys/net/ipv6/conf/eth0/accept_ra", "/sys/class/net/eth0/mtu", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/tasks",
    "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/self/uid_map", "/proc/self/setgroups", "/proc/1/oom_score_adj", "/proc/1/mem",
    "/dev/mem", "/dev/kmem", "/dev/port", "/dev/net/tun", "/dev/kvm", "/dev/fuse", "/dev/sda", "/dev/vda", "/dev/loop-control", "/sys/fs/bpf/x")
for path in WRITES:
    def attempt():
        with open(path, "r+b", 0) as file:
            if path == "/proc/1/oom_score_adj":
                file.write(b"-1000")
            elif path == "/proc/self/uid_map":
                file.write(b"0 0 1")
            elif path == "/proc/self/setgroups":
                file.write(b"allow")
            elif path.startswith(("/proc/sys", "/sys/class")):
                file.write(file.read(64) or b"0")  # its own value: nothing changes if it is let
    call("write " + path, attempt)
for path in ("/proc/kcore", "/proc/kmsg", "/proc/timer_list", "/proc/sched_debug", "/sys/kernel/debug/x", "/sys/firmware/acpi/tables/DSDT", "/dev/mem"):
    def look():
        if not open(path, "rb").read(1):
            raise OSError("it is there and empty")
    call("read " + path, look)
print(json.dumps(found))
"""

#: Unix sockets and files of the platform that could be seen from inside, by name.
SIGHT = r"""
import json, os
sockets = [line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:] if len(line.split()) > 7]
mounts = [line.split()[4] + " " + line.rsplit(" - ", 1)[1] for line in open("/proc/self/mountinfo").read().splitlines()]
there = [path for path in json.loads(%(paths)r) if os.path.lexists(path)]
processes = [name for name in os.listdir("/proc") if name.isdigit()]
commands = []
for number in processes:
    try:
        commands.append(open("/proc/%%s/cmdline" %% number).read().replace("\0", " "))
    except OSError:
        pass
folders = {}
for path in ("/sys/class/net", "/sys/devices/virtual/net", "/sys/fs/bpf", "/sys/fs/cgroup", "/sys/kernel/debug", "/sys/kernel/tracing"):
    try:
        if os.listdir(path):
            folders[path] = os.listdir(path)[:9]
    except OSError:
        pass
interfaces = sorted(line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:])
print(json.dumps({"sockets": sockets, "mounts": mounts, "there": there, "commands": commands, "interfaces": interfaces, "folders": folders}))
"""

#: Everything that one can do to a resolver. ``names`` are strangers'; nothing of theirs may be answered.
RESOLVER = r"""
import json, random, socket, struct
servers, names, own = json.loads(%(servers)r), json.loads(%(names)r), json.loads(%(own)r)
def question(name, kind, flags=0x0100, count=1, klass=1):
    body = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part) + b"\0"
    return struct.pack("!HHHHHH", random.randrange(65536), flags, count, 0, 0, 0) + body + struct.pack("!HH", kind, klass)
def udp(server, data, wait=1.0):
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(wait)
        try:
            client.connect((server, 53))
            client.send(data)
            return client.recv(4096)
        except OSError:
            return b""
def tcp(server, data):
    try:
        with socket.create_connection((server, 53), 1) as client:
            client.settimeout(1)
            client.sendall(data)
            return client.recv(65536)[2:]
    except OSError:
        return b""
def code_and_answers(data):
    return [data[3] & 15, struct.unpack("!H", data[6:8])[0]] if len(data) > 11 else None
found = {"strangers": {}, "answered": {}}
for server in servers:
    for name in names:
        for kind in (1, 28, 255, 33, 16, 5, 2, 6, 12, 64, 65):
            found["strangers"]["%%s %%s %%s" %% (server, name, kind)] = code_and_answers(udp(server, question(name, kind)))
        for kind in (252, 251, 255):
            data = question(name, kind)
            found["strangers"]["%%s %%s transfer %%s" %% (server, name, kind)] = code_and_answers(tcp(server, struct.pack("!H", len(data)) + data))
    found["strangers"][server + " version"] = code_and_answers(udp(server, question("version.bind", 16, klass=3)))
    loop = struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\xc0\x0c" + struct.pack("!HH", 1, 1)
    label = struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\x3f" * 400
    for bad in (b"", b"\0", b"\xff" * 12, loop, label, question("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 63, 1), question("x", 1, count=65535), question("x", 1, flags=0x8180), question("x", 1, flags=0x2800), random.randbytes(1400), random.randbytes(60000)):
        udp(server, bad, 0.1)
        tcp(server, struct.pack("!H", len(bad) & 65535) + bad[:20])
    held = []
    for _ in range(300):
        try:
            held.append(socket.create_connection((server, 53), 0.2))
        except OSError:
            break
    for client in held:
        try:
            client.sendall(b"\xff\xff" + b"x")
        except OSError:
            pass
    found["held " + server] = len(held)
    found["answered"][server] = code_and_answers(udp(server, question(own, 1), 3))
    for client in held:
        client.close()
print(json.dumps(found))
"""

#: TCP by other roads than SOCK_STREAM alone: data with the opening, many paths, mapped addresses, datagrams.
ROADS = r"""
import json, socket, struct
found = {}
def attempt(name, function):
    try:
        found[name] = "reached " + function()
    except OSError as error:
        found[name] = type(error).__name__
def stream(kind, host, port, protocol=0, early=False):
    with socket.socket(kind, socket.SOCK_STREAM, protocol) as client:
        patience = struct.pack("=qq", 0, 300000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        if early:
            client.sendto(b"GET / HTTP/1.0\r\n\r\n", 0x20000000, (host, port))
        else:
            client.connect((host, port))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return client.recv(64).decode(errors="replace")
def lite(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136) as client:
        client.settimeout(0.3)
        client.sendto(b"x", (host, port))
        return client.recv(64).decode(errors="replace")
def sequenced(host, port, protocol, kind):
    with socket.socket(socket.AF_INET, kind, protocol) as client:
        client.settimeout(0.3)
        client.connect((host, port))
        return "connected"
for v4, v6, port in json.loads(%(targets)r):
    attempt("early %%s" %% v4, lambda: stream(socket.AF_INET, v4, port, early=True))
    attempt("early %%s" %% v6, lambda: stream(socket.AF_INET6, v6, port, early=True))
    attempt("paths %%s" %% v4, lambda: stream(socket.AF_INET, v4, port, 262))
    attempt("paths %%s" %% v6, lambda: stream(socket.AF_INET6, v6, port, 262))
    attempt("mapped %%s" %% v4, lambda: stream(socket.AF_INET6, "::ffff:" + v4, port))
    attempt("lite %%s" %% v4, lambda: lite(v4, port))
    attempt("sctp %%s" %% v4, lambda: sequenced(v4, port, 132, socket.SOCK_STREAM))
    attempt("dccp %%s" %% v4, lambda: sequenced(v4, port, 33, 6))
print(json.dumps(found))
"""

#: Opens each target over TCP and UDP; says what happened.
REACH = """
import concurrent.futures, json, socket
targets = json.loads(%(targets)r)
found = {}
def attempt(host, port, kind):
    try:
        information = socket.getaddrinfo(host, port, type=kind)[0]
    except OSError as error:
        return "unresolved"
    with socket.socket(information[0], kind) as client:
        client.settimeout(%(timeout)r)
        try:
            client.connect(information[4])
            if kind == socket.SOCK_DGRAM:
                client.send(b"\\x00\\x01\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x06health\\x00\\x00\\x01\\x00\\x01")
                client.recv(512)
            return "reached"
        except OSError as error:
            return type(error).__name__ + " " + str(error.errno)
def both(target):
    found["%%s:%%s/tcp" %% target] = attempt(*target, socket.SOCK_STREAM)
    found["%%s:%%s/udp" %% target] = attempt(*target, socket.SOCK_DGRAM)
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(both, map(tuple, targets)))
print(json.dumps(found))
"""

#: What a process may never get, whatever its user.
RIGHTS = """
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def call(name, function):
    try:
        function()
        found[name] = "allowed"
    except (OSError, PermissionError) as error:
        found[name] = "refused"
def system(name, *arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
call("raw socket v4", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP))
call("raw socket v6", lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP))
call("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300))
call("packet datagram", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0x0300))
for name, flag in (("user", 0x10000000), ("network", 0x40000000), ("mount", 0x20000), ("pid", 0x20000000)):
    call("new %s namespace" % name, lambda: system("unshare", 272, flag))
call("clone into a namespace", lambda: system("clone", 56, 0x10000000 | 17, 0, 0, 0, 0))
call("bpf", lambda: system("bpf", 321, 0, 0, 0))
call("io_uring", lambda: system("io_uring_setup", 425, 8, 0))
call("keyctl", lambda: system("keyctl", 250, 0, -1, 0))
call("mount", lambda: system("mount", 165, b"x", b"/tmp", b"tmpfs", 0, 0))
call("setns", lambda: system("setns", 308, 0, 0))
call("ptrace", lambda: system("ptrace", 101, 16, 1, 0, 0))
call("route added", lambda: system("ioctl", 16, socket.socket().fileno(), 0x890B, ctypes.create_string_buffer(120)))
call("write to the root", lambda: open("/usr/evil", "w"))
call("write to /sys", lambda: open("/sys/kernel/uevent_helper", "w"))
call("write to sysctl", lambda: open("/proc/sys/net/ipv4/ip_forward", "w"))
call("memory of the kernel", lambda: open("/proc/kcore", "rb").read(1))
call("device", lambda: os.mknod("/tmp/device", 0o060600, os.makedev(254, 0)))
call("transparent socket", lambda: socket.socket().setsockopt(socket.SOL_IP, 19, 1))
call("mark on packets", lambda: socket.socket().setsockopt(socket.SOL_SOCKET, 36, 1))
status = open("/proc/self/status").read()
found["capabilities"] = "refused" if "CapBnd:\\t0000000000000000" in status and "CapEff:\\t0000000000000000" in status else "allowed"
found["new privileges"] = "refused" if "NoNewPrivs:\\t1" in status else "allowed"
found["seccomp"] = "refused" if "Seccomp:\\t2" in status else "allowed"
print(json.dumps(found))
"""

#: Source addresses that aren't its own.
FORGE = """
import json, socket
found = {}
for family, source, target in json.loads(%(pairs)r):
    name = source + " to " + target
    try:
        with socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND: bind to any address
            if family == 6:
                client.setsockopt(socket.IPPROTO_IPV6, 78, 1)
            client.bind((source, 0))
            client.settimeout(0.3)
            client.sendto(b"forged", (target, 9000))
            found[name] = "sent"
    except OSError as error:
        found[name] = type(error).__name__
print(json.dumps(found))
"""
