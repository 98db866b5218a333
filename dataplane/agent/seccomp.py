"""The seccomp profile of workloads: everything that an application needs, nothing that opens doors."""

from __future__ import annotations

from typing import Any

_CLONE_NEW = 0x7E020000  # every CLONE_NEW… flag: user, network, mount, pid, ipc, uts, cgroup
_AF_PACKET, _AF_VSOCK, _AF_ALG = 17, 40, 38
_AF_NETLINK = 16
_ENOSYS, _EPERM = 38, 1

#: Refused outright. An unknown call fails as on an older kernel, so that libraries fall back.
DENIED = [
    "acct",
    "add_key",
    "bpf",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "init_module",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "migrate_pages",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "personality",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "set_mempolicy",
    "setns",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "sysfs",
    "_sysctl",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
    "vm86",
    "vm86old",
]
IO_URING = ("io_uring_setup", "io_uring_enter", "io_uring_register")


def _argument(index: int, value: int, operation: str, second: int = 0) -> dict[str, Any]:
    """An argument's condition; for a masked comparison ``value`` is the mask and ``second`` the value."""
    return {"index": index, "value": value, "valueTwo": second, "op": operation}


def profile() -> dict[str, Any]:
    """The profile as runc reads it. Allows by default: what is dangerous is named, with its reason."""
    rules: list[dict[str, Any]] = [
        {"names": DENIED, "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM},
        # io_uring goes around the other rules: its operations aren't system calls.
        {"names": list(IO_URING), "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        # clone3 hides its flags from seccomp; libraries fall back to clone.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
    ]
    for bit in range(32):
        flag = 1 << bit
        if flag & _CLONE_NEW:
            rules.append(
                {
                    "names": ["clone"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": _EPERM,
                    "args": [_argument(0, flag, "SCMP_CMP_MASKED_EQ", flag)],
                }
            )
    for family in (_AF_PACKET, _AF_VSOCK, _AF_ALG):
        rules.append(
            {
                "names": ["socket", "socketpair"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 97,  # EAFNOSUPPORT
                "args": [_argument(0, family, "SCMP_CMP_EQ")],
            }
        )
    # Netlink but for reading routes and addresses (0), which getaddrinfo does.
    rules.append(
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 97,
            "args": [_argument(0, _AF_NETLINK, "SCMP_CMP_EQ"), _argument(2, 0, "SCMP_CMP_NE")],
        }
    )
    # Terminal injection.
    rules.append(
        {
            "names": ["ioctl"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": _EPERM,
            "args": [_argument(1, 0xFFFFFFFF, "SCMP_CMP_MASKED_EQ", 0x5412)],
        }
    )
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": rules,
    }
