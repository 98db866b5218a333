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
};

/* What is behind a host-side interface. */
struct endpoint {
	__u32 id;
	__u32 flags;
	__u8 mac[6];			/* the workload's own */
	__u8 host_mac[6];		/* of the host side: the only neighbour it has */
};

/* Who a network namespace is, for the socket hooks. */
struct caller {
	__u32 identity;
	__u32 ifindex;			/* of its host side: addresses of that interface are its own */
};

struct owner {
	__u32 identity;
	__u32 ifindex;			/* the only interface that may use the address; 0: none on this node */
};

struct identity {
	__u32 epoch;			/* which set of policy entries is in force */
	__u32 cell;
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

/* Longest prefix match; prefixlen counts identity, epoch, protocol and port too (96 bits). */
struct external_key {
	__u32 prefixlen;
	__u32 identity;
	__u32 epoch;
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
	__u32 count;
};

struct backend_key {
	__u32 service;
	__u32 slot;
};

struct backend {
	struct address address;
	__u32 port;
};

struct flow_id {
	__u32 ifindex;
	struct address local, remote;
	__u16 local_port, remote_port;
	__u32 protocol;
};

struct flow_state {
	__u64 last;			/* ns since boot, not finer than a second */
	__u32 epoch;			/* of the local identity when it was judged */
	__u32 remote;			/* identity */
	__u32 rule;
	__u32 initiator;		/* direction in which it was opened */
};

struct fragment_key {
	struct address source, destination;
	__u32 ifindex;
	__u32 id;
	__u32 protocol;
};

struct fragment {
	__u64 at;
	__u32 ok;
	__u32 pad;
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

/* Translations of one socket, newest last; enough for a client that asks several services. */
#define TRANSLATIONS 4
struct translation {
	struct address backend, service;
	__u16 backend_port, service_port;
	__u32 used;
};

struct translations {
	struct translation slot[TRANSLATIONS];
	__u32 next;
};
