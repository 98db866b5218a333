/* Structures shared with user space. bpf/layout.py mirrors them; the loader compares both.
 * Addresses are 16 bytes; IPv4 is kept as ::ffff:a.b.c.d. Ports are in host byte order. */
#pragma once

struct address {
	__u32 w[4];
};

/* Written by the agent at start. Networks and masks in network byte order. */
struct config {
	__u32 workloads4, workloads4_mask;
	__u32 services4, services4_mask;
	__u32 workloads6[2];		/* a /64 */
	__u32 services6[2];		/* a /64 */
	__u32 generation;		/* of owners and floor together; the agent raises it after each change */
};

/* What is behind a host-side interface. */
struct endpoint {
	__u32 id;
	__u32 flags;
	__u8 mac[6];			/* the workload's own */
	__u8 host_mac[6];		/* of the host side: the only neighbour it has */
	__u32 bridge;			/* interface that this one is a port of; 0: none */
};
#define ENDPOINT_FOREIGN 1		/* a CNI made it: it asks for its neighbours */

/* Who a network namespace is, for the socket hooks. */
struct caller {
	__u32 identity;
	__u32 ifindex;			/* of its host side: addresses of that interface are its own */
	__u32 flags;
};
#define CALLER_UNTRANSLATED 1		/* opted out: service addresses mean nothing to it */

struct owner {
	__u32 identity;
	__u32 ifindex;			/* the only interface that may use the address; 0: it is on another node */
};

struct identity {
	__u32 epoch;			/* which set of policy entries is in force */
	__u32 cell;
	__u32 flags;
};
#define IDENTITY_LIMITED 2		/* it has an entry in limits */
#define IDENTITY_METERED 4		/* its bandwidth is limited: each packet counts */
#define IDENTITY_ABOVE_FLOOR 1		/* its networks are judged before the floor: the resolver's servers */

/* What a component may use, per second where that applies; 0: no limit. */
struct limit {
	__u64 bytes[2];			/* by direction */
	__u64 burst[2];			/* ns that the bucket may run ahead, by direction */
	__u32 new_connections;		/* for each direction */
	__u32 connections;		/* open TCP connections, both directions together */
};

/* What it uses. Programs write; times are those of a bucket that is full up to them, in ns since boot. */
struct usage {
	__u64 bandwidth[2];
	__u64 new_connections[2];
	__u64 connections;
	__u64 rows, rows_since;		/* of flows that are new in this window */
	__u64 life;			/* of the identity: none of an earlier one is in the count */
};

struct policy_key {
	__u32 identity;
	__u32 epoch;
	__u32 remote;			/* 0: any identity */
	__u16 port;			/* of the destination; 0: any */
	__u8 protocol;
	__u8 direction;
};

struct rule {
	__u32 rule;
	__u32 verdict;
};

/* A network of IPv6 that holds the mapped addresses means none of IPv4: `protocol` has EXTERNAL_V4 there.
 * Longest prefix match; prefixlen counts identity, epoch, protocol and port too (96 bits). */
#define EXTERNAL_V4 0x100
struct external_key {
	__u32 prefixlen;
	__u32 identity;
	__u32 epoch;
	__u16 port;
	__u16 protocol;
	struct address address;
};

/* An address that one consumer may reach because of the name that it asked for. */
struct learned_key {
	__u32 identity;
	__u16 port;
	__u16 protocol;
	struct address address;
};

struct floor_key {
	__u32 prefixlen;
	struct address address;
};

struct service_key {
	__u32 consumer;			/* 0: anybody */
	struct address address;
	__u16 port;
	__u16 protocol;
};

struct service {
	__u32 id;			/* of its backends; another one for every new set */
	__u32 count;			/* of slots: a backend has as many as its weight says */
	__u32 consistent;		/* the same caller gets the same backend */
	__u32 affinity;			/* s that a caller stays with a backend after its last call */
};

struct backend_key {
	__u32 service;
	__u32 slot;
};

struct backend {
	struct address address;
	__u32 port;
};

/* Who is behind a slot, for backends that callers stay with. */
struct member_key {
	__u32 service;
	__u32 port;
	struct address address;
};

struct affinity_key {
	__u64 cookie;			/* of the caller's namespace */
	struct service_key service;
};

struct affinity {
	__u64 last;
	struct address address;
	__u32 port;
	__u32 pad;
};

/* Within one endpoint's table. Fragments of a packet that passed are kept there too: protocol has
 * FLOW_FRAGMENT, and the ports hold the packet's id. */
struct flow_id {
	struct address local, remote;
	__u16 local_port, remote_port;
	__u32 protocol;
};

struct flow_state {
	__u64 last;			/* ns since boot, not finer than a second */
	__u32 epoch;			/* of the local identity when it was judged */
	__u32 remote;			/* identity */
	__u32 rule;
	__u32 local;			/* identity */
	__u32 generation;		/* of what both ends' identities were read from */
	__u32 ingress;			/* interface that packets of the remote end come in by, with SEALED */
	__u8 initiator;			/* direction in which it was opened */
	__u8 flags;
	__u8 audit;			/* the reason why it would have been refused; 0: it is declared */
	__u8 pad;
	__u32 rest;
};
#define FLOW_FRAGMENT 0x100
#define FLOW_FRAGMENT_INGRESS 0x200
#define FROM_NOWHERE 0xffffffff	/* none came in yet */
#define FLOW_LEARNED 1			/* allowed by a learned address: judged at each packet */

/* A connection that counts, kept at its socket. */
struct counted {
	__u32 identity;
	__u32 life;			/* in which of the identity's it was counted */
};

/* Aggregated flows. `remote` is zero where the flow was allowed, to keep the number of rows low. */
struct edge {
	__u32 source, destination;	/* identities */
	struct address remote;
	__u16 port;
	__u8 protocol;
	__u8 direction;
	__u8 verdict;
	__u8 reason;
	__u16 pad;
};

struct edge_count {
	__u64 packets, bytes, last;
	__u32 rule;
	__u32 pad;
};

/* Translations of one socket, one for each service address (and its set of backends) that it calls. */
#define TRANSLATIONS 16
struct translation {
	struct address backend, service;
	__u16 backend_port, service_port;
	__u32 set;			/* the set of backends it was chosen from; 0: free */
	__u32 used;			/* when, by the count of the socket's calls */
};

struct translations {
	struct translation slot[TRANSLATIONS];
	__u32 calls;
};
