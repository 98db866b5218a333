"""The filter of system calls for commands: the container's own profile, by the same library as runc's."""

from __future__ import annotations

import ctypes
from typing import Any

_COMPARE = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_ACTIONS = {
    "SCMP_ACT_ALLOW": _ALLOW,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
}
_EPERM = 1


class _Argument(ctypes.Structure):
    _fields_ = (
        ("number", ctypes.c_uint),
        ("compare", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def _action(name: str, error: int | None) -> int:
    if name == "SCMP_ACT_ERRNO":
        return _ERRNO | (_EPERM if error is None else error)
    if name not in _ACTIONS:
        raise ValueError(f"{name} isn't understood")
    return _ACTIONS[name]


class Filter:
    """Built before a process loses the sight of libraries, loaded as the last thing before its program."""

    def __init__(self, profile: dict[str, Any]) -> None:
        """``profile`` as runc reads it. Raises ``OSError`` or ``ValueError``.

        What isn't of this machine's architecture is killed, whatever else the profile names.
        """
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        self._filter = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))
        if not self._filter:
            raise OSError("there is no filter")
        for rule in profile.get("syscalls") or ():
            action = _action(rule["action"], rule.get("errnoRet"))
            if action == default:
                continue  # The library refuses to be told twice.
            arguments = [
                _Argument(a["index"], _COMPARE[a["op"]], a.get("value", 0), a.get("valueTwo", 0))
                for a in rule.get("args") or ()
            ]
            for name in rule["names"]:
                self._add(name, action, arguments)

    def _add(self, name: str, action: int, arguments: list[_Argument]) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return  # This architecture doesn't have it.
        # As runc does it: conditions of one argument twice are alternatives, not both at once.
        numbers = [argument.number for argument in arguments]
        apart = [[one] for one in arguments] if len(set(numbers)) < len(numbers) else [arguments]
        for conditions in apart:
            given = (_Argument * len(conditions))(*conditions)
            failed = self._library.seccomp_rule_add_array(
                self._filter, ctypes.c_uint32(action), number, ctypes.c_uint(len(conditions)), given
            )
            if failed:
                raise OSError(-failed, f"the rule for {name} isn't taken")

    def load(self) -> None:
        failed = self._library.seccomp_load(self._filter)
        if failed:
            raise OSError(-failed, "the filter can't be loaded")
