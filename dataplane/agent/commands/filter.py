"""The filter of system calls for commands: the same profile by the same library as runc's."""

from __future__ import annotations

import ctypes
from typing import Any

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_COMPARE = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


class _Argument(ctypes.Structure):
    _fields_ = (
        ("number", ctypes.c_uint),
        ("compare", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class Filter:
    """Built before a process loses the sight of libraries, loaded as the last thing before its program."""

    def __init__(self, profile: dict[str, Any]) -> None:
        """Raises ``OSError`` or ``ValueError``; what isn't this machine's architecture is killed."""
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        if profile["defaultAction"] != "SCMP_ACT_ALLOW":
            raise ValueError("a profile that doesn't allow by default isn't understood")
        self._filter = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(_ALLOW)))
        if not self._filter:
            raise OSError("there is no filter")
        for rule in profile["syscalls"]:
            if rule["action"] != "SCMP_ACT_ERRNO":
                raise ValueError(f"{rule['action']} isn't understood")
            arguments = [
                _Argument(a["index"], _COMPARE[a["op"]], a["value"], a["valueTwo"])
                for a in rule.get("args", ())
            ]
            for name in rule["names"]:
                self._add(name, _ERRNO | rule["errnoRet"], arguments)

    def _add(self, name: str, action: int, arguments: list[_Argument]) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return  # This architecture doesn't have it.
        given = (_Argument * len(arguments))(*arguments)
        failed = self._library.seccomp_rule_add_array(
            self._filter, ctypes.c_uint32(action), number, ctypes.c_uint(len(arguments)), given
        )
        if failed:
            raise OSError(-failed, f"the rule for {name} isn't taken")

    def load(self) -> None:
        failed = self._library.seccomp_load(self._filter)
        if failed:
            raise OSError(-failed, "the filter can't be loaded")
