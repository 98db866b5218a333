/* Most packets belong to a flow that was judged: then this decides with few look-ups.
 *
 * A flow is in its endpoint's own table under its local address. While nothing about owners of addresses
 * and the floor has changed since (`generation`), its local address is still the endpoint's and its
 * remote one is still who it was; while the policy is the same (`epoch`), the verdict stands. What doesn't
 * hold, or isn't plain TCP or UDP, goes the whole way. */
#pragma once

/* Whether the packet passes for that reason; 0 says nothing. */
static inline int known_flow(struct __sk_buff *skb, const struct endpoint *e, const struct config *c, void *table,
			     __u32 direction)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct flow_id id = {};
	struct address *source = direction == DIRECTION_EGRESS ? &id.local : &id.remote;
	struct address *destination = direction == DIRECTION_EGRESS ? &id.remote : &id.local;
	__u8 *transport;
	__be16 *ports;

	if (skb->vlan_present || data + ETH_HLEN + sizeof(struct iphdr) + 8 > end)
		return 0;
	if (direction == DIRECTION_EGRESS &&
	    (macs_differ(eth->h_source, e->mac) || is_wrong_neighbour(e, eth->h_dest)))
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + ETH_HLEN;
		if (*(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(0x3fff))
			return 0;
		id.protocol = ip->protocol;
		from_v4(source, ip->saddr);
		from_v4(destination, ip->daddr);
		transport = (__u8 *)(ip + 1);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + ETH_HLEN;
		if ((void *)(ip + 1) + 8 > end || ip->version != 6)
			return 0;
		id.protocol = ip->nexthdr;
		*source = *(struct address *)&ip->saddr;
		*destination = *(struct address *)&ip->daddr;
		if (is_v4(source) || is_v4(destination))
			return 0;
		transport = (__u8 *)(ip + 1);
	} else {
		return 0;
	}
	if (id.protocol == IPPROTO_TCP) {
		if ((void *)transport + 14 > end || (transport[13] & (TCP_SYN | TCP_ACK)) == TCP_SYN)
			return 0;
	} else if (id.protocol != IPPROTO_UDP) {
		return 0;
	}
	ports = (__be16 *)transport;
	if ((void *)transport + 4 > end)
		return 0;
	id.local_port = bpf_ntohs(direction == DIRECTION_EGRESS ? ports[0] : ports[1]);
	id.remote_port = bpf_ntohs(direction == DIRECTION_EGRESS ? ports[1] : ports[0]);

	struct flow_state *s = inner_lookup(table, &id);
	if (!s || s->generation != c->generation || s->flags & FLOW_LEARNED)
		return 0;
	if (direction == DIRECTION_INGRESS && s->ingress != arrival_of(skb))
		return 0;
	__u32 local = s->local;
	struct identity *i = map_lookup(identities, &local);
	if (!i || i->epoch != s->epoch || i->flags & IDENTITY_METERED)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	if (is_stale(s, id.protocol, now))
		return 0;
	if (now - s->last > SECOND)
		s->last = now;
	if (s->initiator != direction)
		return 1;
	struct verdict v = {};
	v.rule = s->rule;
	v.audit = s->audit;
	__u32 out = direction == DIRECTION_EGRESS;
	record_at(out ? local : s->remote, out ? s->remote : local, &id.remote, out ? id.remote_port : id.local_port,
		  id.protocol, direction, &v, skb->len, now);
	return 1;
}
