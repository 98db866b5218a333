/* Where a packet came in, and whether its source address may come from there.
 *
 * The interface that the kernel remembers is the bridge's for what went up through a bridge, where anybody
 * else's port leads to as well. So from_workload sets a bit of the mark on what it lets pass from a port:
 * the kernel clears marks where a packet changes namespaces, so nobody in one can set it. */
#pragma once

/* Not kube-proxy's (0x4000, 0x8000), portmap's (0x2000) or one of the upper half, as others use. */
#define SEAL 0x1000
#define SEALED 0x80000000		/* beside an interface index, which is positive */

static inline __u32 arrival_of(const struct __sk_buff *skb)
{
	return skb->ingress_ifindex | (skb->mark & SEAL ? SEALED : 0);
}

static inline void seal(struct __sk_buff *skb, const struct endpoint *e)
{
	if (e->bridge)
		skb->mark |= SEAL;
}

/* Whether what arrived so can be this owner's. */
static inline int came_from(const struct owner *o, __u32 arrival)
{
	__u32 by = arrival & ~SEALED, ifindex = o->ifindex;
	if (!by)
		return 0;	/* made on the node */
	if (!ifindex)
		return map_lookup(underlays, &by) != 0;
	if (ifindex == by)
		return 1;
	if (!(arrival & SEALED))
		return 0;
	struct endpoint *e = map_lookup(endpoints, &ifindex);
	return e && e->bridge == by;
}
