"""Compiles the kernel programs with clang's warnings as errors: ``python -m bpf.check``.

bcc hides most warnings. Map methods are replaced by plain declarations of the same types, so that
the compiler sees the code as it is written.
"""

from __future__ import annotations

import re
import subprocess
import sys

from bpf import source

_PRELUDE = """
#define BPF_F_NO_PREALLOC 1
#define BPF_SK_STORAGE_GET_F_CREATE 1
#define bpf_ntohs(x) __builtin_bswap16(x)
#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_ntohl(x) __builtin_bswap32(x)
#define bpf_htonl(x) __builtin_bswap32(x)
extern int bpf_sock_ops_cb_flags_set(void *context, int flags);
extern void *map_lookup_(void *map, const void *key);
extern long map_update_(void *map, const void *key, const void *value);
extern long map_delete_(void *map, const void *key);
extern void *storage_get_(void *map, void *socket, __u64 flags);
#define map_lookup(map, key) ((__typeof__(map##_value) *)map_lookup_(&map##_value, key))
#define map_update(map, key, value) map_update_(&map##_value, key, value)
#define map_delete(map, key) map_delete_(&map##_value, key)
#define storage_get(map, socket, flags) ((__typeof__(map##_value) *)storage_get_(&map##_value, socket, flags))
extern int bpf_skb_load_bytes(const void *skb, __u32 offset, void *to, __u32 length);
extern __u64 bpf_ktime_get_ns(void);
extern __u32 bpf_get_prandom_u32(void);
extern __u64 bpf_get_netns_cookie(void *context);
extern int bpf_set_retval(int value);
"""


def main() -> int:
    text = source.flatten()
    includes = "".join(re.findall(r"^#include <.*>\n", text, re.M)).replace("uapi/", "")
    text = re.sub(r"^#include <.*>\n", "", text, flags=re.M)
    text = source.as_externals(text)
    whole = f"#include <linux/types.h>\n{includes}{_PRELUDE}\n{text}"
    command = [
        "clang", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu", "-I/usr/include/aarch64-linux-gnu", "-O2",
        "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-xc", "-",
    ]  # fmt: skip
    return subprocess.run(command, input=whole, text=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
