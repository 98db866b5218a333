/* tc programs on the host side of each workload's veth: the authority on what passes.
 *
 * A packet between two workloads passes both: from_workload of the sender judges its egress,
 * to_workload of the receiver judges its ingress. Each keeps its own memory of the flow. */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/if_packet.h>
#include <uapi/linux/in.h>
#include <uapi/linux/in6.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/pkt_cls.h>
#include "lib/types.h"
#include "lib/reasons.h"
#include "lib/maps.h"
#include "lib/address.h"
#include "lib/origin.h"
#include "lib/packet.h"
#include "lib/neighbour.h"
#include "lib/policy.h"
#include "lib/flows.h"
#include "lib/conntrack.h"
#include "lib/limits.h"
#include "lib/fast.h"

static inline __u16 service_port(const struct view *w, __u32 initiator)
{
	if (w->id.protocol == IPPROTO_ICMP || w->id.protocol == IPPROTO_ICMPV6)
		return 0;
	return initiator == DIRECTION_EGRESS ? w->id.remote_port : w->id.local_port;
}

static inline void judge(const struct view *w, __u32 initiator, struct verdict *v)
{
	__u16 port = service_port(w, initiator);
	if (w->outside && initiator == DIRECTION_EGRESS)
		judge_external(w->local_identity, &w->local, &w->id.remote, port, w->id.protocol, v);
	else
		judge_identity(w->local_identity, w->local.epoch, w->remote_identity, port, w->id.protocol,
			       initiator, v);
}

static inline void account(const struct view *w, __u32 initiator, const struct verdict *v, __u32 bytes)
{
	__u32 source = initiator == DIRECTION_EGRESS ? w->local_identity : w->remote_identity;
	__u32 destination = initiator == DIRECTION_EGRESS ? w->remote_identity : w->local_identity;
	record(source, destination, &w->id.remote, service_port(w, initiator), w->id.protocol, initiator, v, bytes);
}

/* Judge a packet whose two ends are known. Returns TC_ACT_OK or TC_ACT_SHOT. */
static inline int decide(struct __sk_buff *skb, const struct packet *p, struct view *w)
{
	struct verdict v = {};
	__u64 now = bpf_ktime_get_ns();
	__u32 tcp = p->protocol == IPPROTO_TCP;
	__u32 opening = tcp && (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
	__u32 initiator = w->direction, keep = 0, opens = 0;

	struct flow_state *s = inner_lookup(w->table, &w->id);
	if (s && is_stale(s, w->id.protocol, now))
		s = 0;
	/* A SYN or a question against the recorded direction is somebody opening a flow of their own. */
	if (s && (opening || p->icmp == ICMP_REQUEST) && s->initiator != w->direction)
		s = 0;
	if (s && p->icmp == ICMP_REPLY && s->initiator == w->direction) {
		v.reason = REASON_ICMP;	/* an answer from who asked */
	} else if (s) {
		initiator = s->initiator;
		v.rule = s->rule;
		v.audit = s->audit;
		int fresh_enough = s->local == w->local_identity && s->epoch == w->local.epoch &&
				   s->remote == w->remote_identity && !(s->flags & FLOW_LEARNED);
		if (!fresh_enough) {
			v.audit = 0;
			judge(w, initiator, &v);
			keep = 1;
			if (v.reason == REASON_NO_RULE || v.reason == REASON_EGRESS)
				v.reason = REASON_REVOKED;
		} else {
			if (w->outside && initiator == DIRECTION_EGRESS && !(w->local.flags & IDENTITY_ABOVE_FLOOR))
				v.reason = floor_of(&w->id.remote);
			if (now - s->last > SECOND)
				s->last = now;
			/* Where the answers to what it sends come in by, known with the first. */
			if (w->direction == DIRECTION_INGRESS)
				s->ingress = w->ingress;
		}
		if (v.reason)
			inner_delete(w->table, &w->id);
		/* What was read about both ends is newer now. */
		if (s->generation != w->generation)
			keep = 1;
		opens = opening;
	} else {
		if (p->icmp == ICMP_REPLY)
			v.reason = REASON_ICMP;
		else
			judge(w, initiator, &v);
		/* A TCP packet in the middle of a flow that was forgotten may belong to either side's. */
		if (v.reason && tcp && !(p->tcp_flags & TCP_SYN && !(p->tcp_flags & TCP_ACK))) {
			struct verdict other = {};
			__u32 reverse = !w->direction;
			judge(w, reverse, &other);
			if (!other.reason) {
				v = other;
				initiator = reverse;
			}
		}
		keep = 1;
		opens = opening || !tcp;
	}
	if (!v.reason)
		v.reason = within_limits(w->local_identity, &w->local, w->direction, opens, tcp, skb->len, now);
	if (!v.reason && keep)
		remember(w, &v, initiator, now);
	if (v.reason || initiator == w->direction)
		account(w, initiator, &v, skb->len);
	if (v.reason)
		return TC_ACT_SHOT;
	if (p->fragment == FRAGMENT_FIRST)
		remember_fragment(w->table, p, w->direction);
	return TC_ACT_OK;
}

/* What follows a first fragment that passed. */
static inline int decide_fragment(struct __sk_buff *skb, const struct packet *p, struct view *w)
{
	struct verdict v = {};
	if (!fragment_passes(w->table, p, w->direction))
		v.reason = REASON_FRAGMENT;
	else
		v.reason = within_limits(w->local_identity, &w->local, w->direction, 0, 0, skb->len,
					 bpf_ktime_get_ns());
	if (!v.reason)
		return TC_ACT_OK;
	__u32 egress = w->direction == DIRECTION_EGRESS;
	record(egress ? w->local_identity : w->remote_identity, egress ? w->remote_identity : w->local_identity,
	       egress ? &p->destination : &p->source, 0, p->protocol, w->direction, &v, skb->len);
	return TC_ACT_SHOT;
}

/* An ICMP error passes if it is about a flow that exists and that the rules in force let be: the packet that it
 * is about has just passed here. What a workload sends goes to that flow's other end and to nobody else, however
 * far that one may be; what it gets may be a router's. */
static inline int decide_error(struct __sk_buff *skb, const struct packet *p, struct view *w)
{
	struct packet inner = {};
	struct verdict v = {};
	__u32 egress = w->direction == DIRECTION_EGRESS;
	__u64 now = bpf_ktime_get_ns();
	v.reason = REASON_ICMP;
	if (!read_inner(skb, p, &inner)) {
		struct flow_id id = {};
		id.protocol = inner.protocol;
		id.local = egress ? inner.destination : inner.source;
		id.remote = egress ? inner.source : inner.destination;
		id.local_port = egress ? inner.destination_port : inner.source_port;
		id.remote_port = egress ? inner.source_port : inner.destination_port;
		struct flow_state *s = inner_lookup(w->table, &id);
		if (s && same(&id.local, &w->id.local) && s->local == w->local_identity &&
		    s->epoch == w->local.epoch && !is_stale(s, id.protocol, now) &&
		    (!egress || (same(&id.remote, &w->id.remote) && s->remote == w->remote_identity))) {
			v.reason = within_limits(w->local_identity, &w->local, w->direction, 0, 0, skb->len, now);
			if (!v.reason)
				return TC_ACT_OK;
		}
	}
	account(w, w->direction, &v, skb->len);
	return TC_ACT_SHOT;
}

static inline int refuse(struct __sk_buff *skb, const struct packet *p, __u32 source, __u32 destination,
			 __u32 reason, __u8 direction)
{
	struct verdict v = {};
	v.reason = reason;
	record(source, destination, direction == DIRECTION_EGRESS ? &p->destination : &p->source,
	       p->destination_port, p->protocol, direction, &v, skb->len);
	return TC_ACT_SHOT;
}

/* A bridge gives every port what is for everybody, or for somebody it doesn't know yet. */
static inline int is_flooded(struct __sk_buff *skb, const struct endpoint *e)
{
	__u8 mac[6] = {};
	return bpf_skb_load_bytes(skb, 0, mac, 6) < 0 || macs_differ(mac, e->mac);
}

int from_workload(struct __sk_buff *skb)
{
	struct packet p = {};
	struct view w = {};
	__u32 zero = 0, ifindex = skb->ifindex;
	__u8 macs[12] = {};
	struct endpoint *e = map_lookup(endpoints, &ifindex);
	struct config *c = map_lookup(config, &zero);
	w.table = map_lookup(conntrack, &ifindex);
	if (!e || !c || !w.table)
		return refuse(skb, &p, 0, 0, REASON_NOT_READY, DIRECTION_EGRESS);
	if (known_flow(skb, e, c, w.table, DIRECTION_EGRESS)) {
		seal(skb, e);
		return TC_ACT_OK;
	}
	w.generation = c->generation;
	w.ingress = FROM_NOWHERE;
	__u32 reason = read_packet(skb, &p);
	/* Who sends: the address must be this interface's own. */
	struct owner *o = map_lookup(ipcache, &p.source);
	__u32 claimed = o && o->ifindex == ifindex ? o->identity : 0;
	/* Whom a refusal is counted for, which bounds the counts: what the interface is, whatever is claimed. */
	__u32 whose = claimed ? claimed : e->id;
	if (reason == REASON_NEIGHBOUR && e->flags & ENDPOINT_FOREIGN && neighbour_from(skb, e, &p))
		return TC_ACT_OK;
	if (reason)
		return refuse(skb, &p, whose, 0, reason, DIRECTION_EGRESS);
	if (bpf_skb_load_bytes(skb, 0, macs, 12) < 0)
		return refuse(skb, &p, whose, 0, REASON_MALFORMED, DIRECTION_EGRESS);
	if (macs_differ(macs + 6, e->mac) || is_wrong_neighbour(e, macs))
		return refuse(skb, &p, whose, 0, REASON_BAD_MAC, DIRECTION_EGRESS);
	if (!claimed) {
		/* Reported with the address that was claimed. */
		struct verdict v = {};
		v.reason = REASON_SPOOFED_SOURCE;
		record(whose, 0, &p.source, p.destination_port, p.protocol, DIRECTION_EGRESS, &v, skb->len);
		return TC_ACT_SHOT;
	}
	w.local_identity = claimed;
	struct identity *i = map_lookup(identities, &w.local_identity);
	if (!i)
		return refuse(skb, &p, claimed, 0, REASON_NOT_READY, DIRECTION_EGRESS);
	w.local = *i;
	if (is_multicast(&p.destination))
		return refuse(skb, &p, claimed, 0, REASON_MULTICAST, DIRECTION_EGRESS);
	if (is_loopback(&p.destination))
		return refuse(skb, &p, claimed, 0, REASON_FLOOR, DIRECTION_EGRESS);
	w.remote_identity = IDENTITY_WORLD;
	struct owner *d = map_lookup(ipcache, &p.destination);
	if (d) {
		w.remote_identity = d->identity;
	} else {
		int range = range_of(c, &p.destination);
		if (range != RANGE_OUTSIDE)
			return refuse(skb, &p, claimed, 0,
				      range == RANGE_SERVICES ? REASON_SERVICE_ON_WIRE : REASON_UNKNOWN_DESTINATION,
				      DIRECTION_EGRESS);
		w.outside = 1;
		if (floor_of(&p.destination) == REASON_NODE)
			w.remote_identity = IDENTITY_NODE;
	}
	w.direction = DIRECTION_EGRESS;
	if (p.fragment == FRAGMENT_LATER) {
		seal(skb, e);
		return decide_fragment(skb, &p, &w);
	}
	w.id.local = p.source;
	w.id.remote = p.destination;
	w.id.local_port = p.source_port;
	w.id.remote_port = p.destination_port;
	w.id.protocol = p.protocol;
	int verdict = p.icmp == ICMP_ERROR ? decide_error(skb, &p, &w) : decide(skb, &p, &w);
	if (verdict == TC_ACT_OK)
		seal(skb, e);
	return verdict;
}

int to_workload(struct __sk_buff *skb)
{
	struct packet p = {};
	struct view w = {};
	__u32 zero = 0, ifindex = skb->ifindex;
	struct endpoint *e = map_lookup(endpoints, &ifindex);
	struct config *c = map_lookup(config, &zero);
	w.table = map_lookup(conntrack, &ifindex);
	if (!e || !c || !w.table)
		return refuse(skb, &p, 0, 0, REASON_NOT_READY, DIRECTION_INGRESS);
	if (known_flow(skb, e, c, w.table, DIRECTION_INGRESS))
		return TC_ACT_OK;
	w.generation = c->generation;
	w.ingress = arrival_of(skb);
	__u32 reason = read_packet(skb, &p);
	/* Whom a refusal is counted for, which bounds the counts: strangers may send whatever they like. */
	__u32 whose = e->id;
	if (e->flags & ENDPOINT_FOREIGN) {
		int heard = reason == REASON_NEIGHBOUR ? neighbour_to(skb, &p) : NEIGHBOUR_REFUSED;
		if (heard == NEIGHBOUR_PASSES)
			return TC_ACT_OK;
		if (heard == NEIGHBOUR_ELSEWHERE || (reason != REASON_NEIGHBOUR && is_flooded(skb, e)))
			return TC_ACT_SHOT;
	}
	if (reason)
		return refuse(skb, &p, 0, whose, reason, DIRECTION_INGRESS);
	struct owner *l = map_lookup(ipcache, &p.destination);
	if (!l || l->ifindex != ifindex)
		return refuse(skb, &p, 0, whose, REASON_NOT_LOCAL, DIRECTION_INGRESS);
	w.local_identity = l->identity;
	struct identity *i = map_lookup(identities, &w.local_identity);
	if (!i)
		return refuse(skb, &p, 0, w.local_identity, REASON_NOT_READY, DIRECTION_INGRESS);
	w.local = *i;
	/* The identity of an address counts only for what came in where its owner is. */
	struct owner *o = map_lookup(ipcache, &p.source);
	if (o) {
		if (!came_from(o, w.ingress))
			return refuse(skb, &p, 0, w.local_identity, REASON_SPOOFED_SOURCE, DIRECTION_INGRESS);
		w.remote_identity = o->identity;
	} else if (range_of(c, &p.source) != RANGE_OUTSIDE || is_loopback(&p.source) || is_multicast(&p.source)) {
		return refuse(skb, &p, 0, w.local_identity, REASON_SPOOFED_SOURCE, DIRECTION_INGRESS);
	} else {
		w.outside = 1;
		w.remote_identity = IDENTITY_WORLD;
		if (floor_of(&p.source) == REASON_NODE) {
			/* Only the node itself has the node's addresses. Other nodes are strangers. */
			__u32 by = skb->ingress_ifindex;
			if (by && !map_lookup(underlays, &by))
				return refuse(skb, &p, 0, w.local_identity, REASON_SPOOFED_SOURCE, DIRECTION_INGRESS);
			if (!by)
				w.remote_identity = IDENTITY_NODE;
		}
	}
	w.direction = DIRECTION_INGRESS;
	if (p.fragment == FRAGMENT_LATER)
		return decide_fragment(skb, &p, &w);
	w.id.local = p.destination;
	w.id.remote = p.source;
	w.id.local_port = p.destination_port;
	w.id.remote_port = p.source_port;
	w.id.protocol = p.protocol;
	return p.icmp == ICMP_ERROR ? decide_error(skb, &p, &w) : decide(skb, &p, &w);
}

/* To the plane's other nodes: nobody pretends there to be a workload that isn't this node's own. What
 * isn't the platform's is left to whoever else has a filter here. */
int to_underlay(struct __sk_buff *skb)
{
	struct address source = {};
	struct verdict v = {};
	__u32 zero = 0, v4 = 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes_relative(skb, 12, &v4, 4, BPF_HDR_START_NET) < 0)
			return TC_ACT_UNSPEC;
		from_v4(&source, v4);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes_relative(skb, 8, &source, 16, BPF_HDR_START_NET) < 0)
			return TC_ACT_UNSPEC;
	} else {
		return TC_ACT_UNSPEC;
	}
	struct config *c = map_lookup(config, &zero);
	struct owner *o = map_lookup(ipcache, &source);
	/* The platform's own ranges mean something on one node alone. */
	if (!c || range_of(c, &source) == RANGE_OUTSIDE) {
		if (!o || (o->ifindex && came_from(o, arrival_of(skb))))
			return TC_ACT_UNSPEC;
	}
	v.reason = REASON_SPOOFED_SOURCE;
	record(0, 0, o ? &source : 0, 0, 0, DIRECTION_EGRESS, &v, skb->len);
	return TC_ACT_SHOT;
}
