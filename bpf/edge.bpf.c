/* XDP at the node's edge: who is on the deny list doesn't reach the public ports, and one source
 * opens only so many connections in a second there.
 *
 * It sees what comes in by one interface that the operator named, before the host spends anything on it.
 * Everything else passes: this isn't the node's firewall. Where no port can be read (fragments, IPv4
 * options, IPv6 extension headers) only the deny list applies; the rest is for the stack. */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>
#include "lib/edge.h"

#define PORT_PUBLIC 1
#define PORT_UNREADABLE 2

/* A packet as far as it matters here. */
struct arrival {
	struct edge_address source;
	__u32 protocol;
	__u32 port;			/* PORT_…, 0: not ours */
	__u32 opening;			/* counts against the pace */
};

static inline void count(__u32 what)
{
	__u64 *cell = map_lookup(edge_counters, &what);
	if (cell)
		*cell += 1;
}

static inline int is_public(__u16 port, __u16 protocol)
{
	struct edge_port k = {};
	k.port = port;
	k.protocol = protocol;
	return map_lookup(edge_ports, &k) != 0;
}

static inline void read_transport(struct arrival *a, void *at, void *end)
{
	if (a->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = at;
		if ((void *)(tcp + 1) > end)
			return;			/* the stack drops it */
		a->opening = tcp->syn && !tcp->ack;
		a->port = is_public(bpf_ntohs(tcp->dest), IPPROTO_TCP) ? PORT_PUBLIC : 0;
	} else if (a->protocol == IPPROTO_UDP) {
		struct udphdr *udp = at;
		if ((void *)(udp + 1) > end)
			return;
		a->opening = 1;
		a->port = is_public(bpf_ntohs(udp->dest), IPPROTO_UDP) ? PORT_PUBLIC : 0;
	}
}

static inline void read_v4(struct arrival *a, void *at, void *end)
{
	struct iphdr *ip = at;
	if ((void *)(ip + 1) > end || ip->version != 4)
		return;
	a->source.w[2] = bpf_htonl(0xffff);
	a->source.w[3] = ip->saddr;
	a->protocol = ip->protocol;
	if (ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
		a->port = PORT_UNREADABLE;
	else
		read_transport(a, ip + 1, end);
}

static inline void read_v6(struct arrival *a, void *at, void *end)
{
	struct ipv6hdr *ip = at;
	if ((void *)(ip + 1) > end || ip->version != 6)
		return;
	__builtin_memcpy(&a->source, &ip->saddr, 16);
	a->protocol = ip->nexthdr;
	if (a->protocol == IPPROTO_HOPOPTS || a->protocol == IPPROTO_ROUTING || a->protocol == IPPROTO_FRAGMENT ||
	    a->protocol == IPPROTO_DSTOPTS)
		a->port = PORT_UNREADABLE;
	else
		read_transport(a, ip + 1, end);
}

static inline int is_denied(const struct edge_address *source)
{
	struct edge_prefix k = {};
	k.prefixlen = 128;
	k.address = *source;
	return map_lookup(edge_denied, &k) != 0;
}

/* Whether the source may open one more: it is no further ahead of its pace than a burst may be.
 * Two processors at once may both let one pass; the pace stays. */
static inline int keeps_pace(const struct arrival *a)
{
	__u32 which = a->protocol == IPPROTO_UDP;
	struct edge_pace *pace = map_lookup(edge_paces, &which);
	if (!pace || !pace->interval)
		return 1;
	struct edge_source k = {};
	k.address = a->source;
	k.protocol = a->protocol;
	if (k.address.w[0] || k.address.w[1]) {
		k.address.w[2] = 0;
		k.address.w[3] = 0;
	}
	__u64 now = bpf_ktime_get_ns();
	__u64 *due = map_lookup(edge_sources, &k);
	if (!due) {
		__u64 first = now + pace->interval;
		if (map_update(edge_sources, &k, &first) < 0)
			count(EDGE_COUNT_SOURCES_FULL);
		return 1;
	}
	__u64 next = *due > now ? *due : now;
	if (next - now > pace->tolerance)
		return 0;
	*due = next + pace->interval;
	return 1;
}

static inline int refuse(const struct arrival *a, __u32 reason, __u32 counter, __u64 bytes)
{
	struct edge_offender k = {};
	count(counter);
	k.address = a->source;
	k.reason = reason;
	struct edge_tally *tally = map_lookup(edge_offenders, &k);
	if (tally) {
		__sync_fetch_and_add(&tally->packets, 1);
		__sync_fetch_and_add(&tally->bytes, bytes);
		tally->last = bpf_ktime_get_ns();
		return XDP_DROP;
	}
	struct edge_tally fresh = {};
	fresh.packets = 1;
	fresh.bytes = bytes;
	fresh.last = bpf_ktime_get_ns();
	if (map_update(edge_offenders, &k, &fresh) < 0)
		count(EDGE_COUNT_OFFENDERS_FULL);
	return XDP_DROP;
}

int node_edge(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct arrival a = {};
	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		read_v4(&a, eth + 1, end);
	else if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		read_v6(&a, eth + 1, end);
	if (!a.port)
		return XDP_PASS;
	if (is_denied(&a.source))
		return refuse(&a, REASON_EDGE_DENIED_, EDGE_COUNT_DENIED, end - data);
	if (a.port == PORT_PUBLIC && a.opening && !keeps_pace(&a))
		return refuse(&a, REASON_EDGE_RATE_, EDGE_COUNT_RATE, end - data);
	return XDP_PASS;
}
