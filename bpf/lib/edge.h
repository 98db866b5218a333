/* Structures and maps of the node's edge. bpf/edge.py mirrors them and compares both at loading.
 * Addresses are 16 bytes; IPv4 is kept as ::ffff:a.b.c.d. Ports are in host byte order. */
#pragma once

struct edge_address {
	__u32 w[4];
};

/* What one source may do in a second, as the time that one of them takes. Zero: no limit. */
struct edge_pace {
	__u64 interval;			/* ns */
	__u64 tolerance;		/* ns: how far ahead of the pace a burst may be */
};

struct edge_port {
	__u16 port;
	__u16 protocol;
};

/* Longest prefix match; prefixlen is among 128 bits. */
struct edge_prefix {
	__u32 prefixlen;
	struct edge_address address;
};

struct edge_source {
	struct edge_address address;	/* IPv6: its /64, whose addresses are one host's to choose */
	__u32 protocol;
};

struct edge_offender {
	struct edge_address address;
	__u32 reason;
};

struct edge_tally {
	__u64 packets, bytes;
	__u64 last;			/* ns since boot */
};

/* One entry for each protocol: 0 TCP, 1 UDP. Agent writes; the program reads. */
CY_MAP("array", __u32, struct edge_pace, edge_paces, 2, 0)
/* The ports that this is about. Agent writes; the program reads. */
CY_MAP("hash", struct edge_port, __u32, edge_ports, 64, BPF_F_NO_PREALLOC)
/* Who may not come. Agent writes; the program reads. Full: the entry is refused and the node says so. */
CY_MAP("lpm_trie", struct edge_prefix, __u32, edge_denied, 16384, BPF_F_NO_PREALLOC)
/* When a source is back at its pace. The program's own. The source unseen for longest makes room: it begins anew. */
CY_MAP("lru_hash", struct edge_source, __u64, edge_sources, 65536, 0)
/* Who was refused, for people. The program writes, the agent reads; the oldest makes room. */
CY_MAP("lru_hash", struct edge_offender, struct edge_tally, edge_offenders, 1024, 0)
/* Packets by EDGE_*. The program counts; the agent reports. */
CY_MAP("percpu_array", __u32, __u64, edge_counters, 8, 0)

#define EDGE_COUNT_DENIED 0
#define EDGE_COUNT_RATE 1
#define EDGE_COUNT_SOURCES_FULL 2
#define EDGE_COUNT_OFFENDERS_FULL 3

/* As in reasons.h. */
#define REASON_EDGE_DENIED_ 29
#define REASON_EDGE_RATE_ 30
