/* Reading a packet once. Whatever isn't understood completely isn't let through. */
#pragma once

#define FRAGMENT_NONE 0
#define FRAGMENT_FIRST 1
#define FRAGMENT_LATER 2

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct packet {
	struct address source, destination;
	__u32 fragment_id;
	__u16 source_port, destination_port;
	__u16 l4;			/* offset of the transport header */
	__u16 fragment_offset;		/* in bytes */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 fragment;
	__u8 icmp;			/* kind of message */
};

#define ICMP_REQUEST 1
#define ICMP_REPLY 2
#define ICMP_ERROR 3

static inline int read_transport(struct __sk_buff *skb, struct packet *p)
{
	if (p->fragment == FRAGMENT_LATER) {
		/* RFC 3128: what would write over the header that the first fragment was judged by. */
		return p->protocol == IPPROTO_TCP && p->fragment_offset < 24 ? REASON_FRAGMENT : REASON_OK;
	}
	if (p->protocol == IPPROTO_TCP) {
		struct tcp_start { __be16 source, destination; __be32 seq, ack; __u8 offset, flags; } t = {};
		if (bpf_skb_load_bytes(skb, p->l4, &t, 14) < 0)
			return REASON_MALFORMED;
		p->source_port = bpf_ntohs(t.source);
		p->destination_port = bpf_ntohs(t.destination);
		p->tcp_flags = t.flags;
		return REASON_OK;
	}
	if (p->protocol == IPPROTO_UDP) {
		__be16 u[4] = {};
		if (bpf_skb_load_bytes(skb, p->l4, u, 8) < 0)
			return REASON_MALFORMED;
		p->source_port = bpf_ntohs(u[0]);
		p->destination_port = bpf_ntohs(u[1]);
		return REASON_OK;
	}
	if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6) {
		__u8 i[8] = {};
		if (bpf_skb_load_bytes(skb, p->l4, i, 8) < 0)
			return REASON_MALFORMED;
		/* The echo id stands where both ports stand elsewhere. */
		p->source_port = p->destination_port = ((__u16)i[4] << 8) | i[5];
		int six = p->protocol == IPPROTO_ICMPV6;
		if (six == is_v4(&p->source))
			return REASON_PROTOCOL;
		if (i[0] == (six ? 128 : 8))
			p->icmp = ICMP_REQUEST;
		else if (i[0] == (six ? 129 : 0))
			p->icmp = ICMP_REPLY;
		else if (six ? i[0] >= 1 && i[0] <= 4 : i[0] == 3 || i[0] == 11 || i[0] == 12)
			p->icmp = ICMP_ERROR;
		else if (six && ((i[0] >= 130 && i[0] <= 137) || i[0] == 143))
			/* Router, neighbour and listener discovery: both sides have permanent entries. */
			return REASON_NEIGHBOUR;
		else
			return REASON_ICMP;
		return REASON_OK;
	}
	return REASON_PROTOCOL;
}

static inline int read_v4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr ip = {};
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
		return REASON_MALFORMED;
	if (ip.version != 4)
		return REASON_MALFORMED;
	if (ip.ihl != 5)
		return REASON_IP_OPTIONS;	/* source routes among them */
	from_v4(&p->source, ip.saddr);
	from_v4(&p->destination, ip.daddr);
	p->protocol = ip.protocol;
	p->l4 = ETH_HLEN + sizeof(ip);
	__u16 fragment = bpf_ntohs(ip.frag_off);
	p->fragment_id = ip.id;
	p->fragment_offset = (fragment & 0x1fff) << 3;
	if (fragment & 0x1fff)
		p->fragment = FRAGMENT_LATER;
	else if (fragment & 0x2000)
		p->fragment = FRAGMENT_FIRST;
	return read_transport(skb, p);
}

static inline int read_v6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr ip = {};
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
		return REASON_MALFORMED;
	if (ip.version != 6)
		return REASON_MALFORMED;
	__builtin_memcpy(&p->source, &ip.saddr, 16);
	__builtin_memcpy(&p->destination, &ip.daddr, 16);
	/* A mapped address on a wire would be taken for IPv4 by everything below. */
	if (is_v4(&p->source) || is_v4(&p->destination))
		return REASON_MALFORMED;
	__u8 next = ip.nexthdr;
	__u32 offset = ETH_HLEN + sizeof(ip);
	int i;
#pragma unroll
	for (i = 0; i < 4; i++) {
		__u8 h[8] = {};
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT)
			break;
		/* Nothing may hide behind a fragment header, and chains end here. */
		if (p->fragment || i == 3)
			return REASON_EXTENSION_HEADER;
		if (bpf_skb_load_bytes(skb, offset, h, 8) < 0)
			return REASON_MALFORMED;
		if (next == IPPROTO_FRAGMENT) {
			__u16 fragment = ((__u16)h[2] << 8) | h[3];
			__builtin_memcpy(&p->fragment_id, &h[4], 4);
			p->fragment = fragment & 0xfff8 ? FRAGMENT_LATER : FRAGMENT_FIRST;
			p->fragment_offset = fragment & 0xfff8;
			offset += 8;
		} else {
			if (h[1] > 16)
				return REASON_EXTENSION_HEADER;
			offset += ((__u32)h[1] + 1) * 8;
		}
		next = h[0];
	}
	if (next == IPPROTO_ROUTING)
		return REASON_EXTENSION_HEADER;
	p->protocol = next;
	p->l4 = offset;
	return read_transport(skb, p);
}

/* Reads source, destination and transport of an Ethernet frame; REASON_OK or why it can't pass. */
static inline int read_packet(struct __sk_buff *skb, struct packet *p)
{
	if (skb->vlan_present)
		return REASON_NOT_IP;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return read_v4(skb, p);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return read_v6(skb, p);
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return REASON_NEIGHBOUR;
	return REASON_NOT_IP;
}

/* The tuple of the packet that an ICMP error is about, as its receiver sent it. */
static inline int read_inner(struct __sk_buff *skb, const struct packet *outer, struct packet *inner)
{
	__u32 offset = outer->l4 + 8;
	__be16 ports[2] = {};
	if (outer->protocol == IPPROTO_ICMP) {
		struct iphdr ip = {};
		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) < 0 || ip.ihl != 5)
			return REASON_ICMP;
		from_v4(&inner->source, ip.saddr);
		from_v4(&inner->destination, ip.daddr);
		inner->protocol = ip.protocol;
		offset += sizeof(ip);
	} else {
		struct ipv6hdr ip = {};
		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) < 0)
			return REASON_ICMP;
		__builtin_memcpy(&inner->source, &ip.saddr, 16);
		__builtin_memcpy(&inner->destination, &ip.daddr, 16);
		inner->protocol = ip.nexthdr;
		offset += sizeof(ip);
	}
	if (inner->protocol != IPPROTO_TCP && inner->protocol != IPPROTO_UDP)
		return REASON_ICMP;
	if (bpf_skb_load_bytes(skb, offset, ports, 4) < 0)
		return REASON_ICMP;
	inner->source_port = bpf_ntohs(ports[0]);
	inner->destination_port = bpf_ntohs(ports[1]);
	return REASON_OK;
}
