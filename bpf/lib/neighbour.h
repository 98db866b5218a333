/* Neighbour discovery of interfaces that a CNI made: a pod may ask, and answer for its own addresses.
 *
 * It speaks with its own hardware address and one of its own addresses, or is refused. It hears the node,
 * and pods of the platform on the same bridge, whose own side has judged what they say; others on the
 * bridge can't tell it anything. Everything else of that kind (routers, listeners, redirects, looking for
 * duplicates) is refused as for every workload. */
#pragma once

#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136

struct arp_message {
	__be16 hardware, protocol;
	__u8 hardware_size, protocol_size;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
};

struct nd_message {
	__u8 type, code;
	__be16 sum;
	__u32 flags;
	struct address target;
	__u8 option, units, mac[6];
};

/* A workload's own veth has one neighbour; a pod's may have more, but no frame is for everybody. */
static inline int is_wrong_neighbour(const struct endpoint *e, const __u8 *mac)
{
	return e->flags & ENDPOINT_FOREIGN ? mac[0] & 1 : macs_differ(mac, e->host_mac);
}

static inline int is_own(struct address *a, __u32 ifindex)
{
	struct owner *o = map_lookup(ipcache, a);
	return o && o->ifindex == ifindex;
}

static inline int read_arp(struct __sk_buff *skb, struct arp_message *m)
{
	return bpf_skb_load_bytes(skb, ETH_HLEN, m, sizeof(*m)) == 0 && m->hardware == bpf_htons(1) &&
	       m->protocol == bpf_htons(ETH_P_IP) && m->hardware_size == 6 && m->protocol_size == 4 &&
	       (m->operation == bpf_htons(1) || m->operation == bpf_htons(2));
}

/* A solicitation or advertisement with at most the option that the kernel sends. */
static inline int read_nd(struct __sk_buff *skb, const struct packet *p, struct nd_message *m)
{
	__u8 head[8] = {};
	if (p->protocol != IPPROTO_ICMPV6 || p->l4 != ETH_HLEN + sizeof(struct ipv6hdr))
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, head, 8) < 0 || head[7] != 255 || head[4])
		return 0;
	if (head[5] == 24)
		return bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), m, 24) == 0 && !m->code &&
		       (m->type == ND_SOLICITATION || m->type == ND_ADVERTISEMENT);
	if (head[5] != 32 || bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), m, 32) < 0)
		return 0;
	return !m->code && m->units == 1 &&
	       ((m->type == ND_SOLICITATION && m->option == 1) || (m->type == ND_ADVERTISEMENT && m->option == 2));
}

/* Whether the pod may send it. */
static inline int neighbour_from(struct __sk_buff *skb, const struct endpoint *e, struct packet *p)
{
	__u8 macs[12] = {};
	__u32 ifindex = skb->ifindex;
	if (bpf_skb_load_bytes(skb, 0, macs, 12) < 0 || macs_differ(macs + 6, e->mac))
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_ARP)) {
		struct arp_message m = {};
		struct address sender;
		if (!read_arp(skb, &m) || macs_differ(m.sender_mac, e->mac))
			return 0;
		from_v4(&sender, *(__u32 *)m.sender);
		return is_own(&sender, ifindex);
	}
	struct nd_message m = {};
	if (!read_nd(skb, p, &m) || (m.units && macs_differ(m.mac, e->mac)) || !is_own(&p->source, ifindex))
		return 0;
	return m.type == ND_SOLICITATION || is_own(&m.target, ifindex);
}

#define NEIGHBOUR_REFUSED 0
#define NEIGHBOUR_PASSES 1
#define NEIGHBOUR_ELSEWHERE 2		/* a bridge told everybody: nothing that somebody tried */

/* Whether the sender of a message is the node, or a pod of the platform whose own side judged it. */
static inline int is_believed(struct __sk_buff *skb, struct address *sender)
{
	if (!skb->ingress_ifindex)
		return 1;
	struct owner *o = map_lookup(ipcache, sender);
	return o && o->ifindex && o->ifindex == skb->ingress_ifindex;
}

/* Whether the pod hears it: NEIGHBOUR_…. */
static inline int neighbour_to(struct __sk_buff *skb, struct packet *p)
{
	__u32 ifindex = skb->ifindex;
	struct address about;
	if (skb->protocol == bpf_htons(ETH_P_ARP)) {
		struct arp_message m = {};
		if (!read_arp(skb, &m))
			return NEIGHBOUR_REFUSED;
		from_v4(&about, *(__u32 *)m.target);
		if (!is_own(&about, ifindex))
			return NEIGHBOUR_ELSEWHERE;
		from_v4(&about, *(__u32 *)m.sender);
		return is_believed(skb, &about);
	}
	struct nd_message m = {};
	if (!read_nd(skb, p, &m))
		return NEIGHBOUR_REFUSED;
	if (m.type == ND_SOLICITATION && !is_own(&m.target, ifindex))
		return NEIGHBOUR_ELSEWHERE;
	return is_believed(skb, &p->source);
}
