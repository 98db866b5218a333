/* Counting: who talked to whom, what was refused and why. */
#pragma once

static inline void record(__u32 source, __u32 destination, const struct address *remote, __u16 port,
			  __u8 protocol, __u8 direction, const struct verdict *v, __u32 bytes)
{
	struct edge k = {};
	k.source = source;
	k.destination = destination;
	k.port = port;
	k.protocol = protocol;
	k.direction = direction;
	k.verdict = v->reason ? VERDICT_DENY : VERDICT_ALLOW;
	k.reason = v->reason;
	if (v->reason && remote)
		k.remote = *remote;
	__u64 now = bpf_ktime_get_ns();
	struct edge_count *c = map_lookup(edges, &k);
	if (c) {
		__sync_fetch_and_add(&c->packets, 1);
		__sync_fetch_and_add(&c->bytes, bytes);
		c->last = now;
		c->rule = v->rule;
		return;
	}
	struct edge_count fresh = {};
	fresh.packets = 1;
	fresh.bytes = bytes;
	fresh.last = now;
	fresh.rule = v->rule;
	if (map_update(edges, &k, &fresh) < 0)
		count(COUNT_EDGES_FULL);
}
