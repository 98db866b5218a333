/* Counting: who talked to whom, what was refused and why. */
#pragma once

/* New rows of one identity in a window; what is beyond shares a row for each reason and peer, and so does all of
 * an identity that isn't known yet. */
#define MOST_ROWS 1024
#define ROWS_WINDOW (2 * SECOND)

static inline void record_at(__u32 source, __u32 destination, const struct address *remote, __u16 port,
			     __u8 protocol, __u8 direction, const struct verdict *v, __u32 bytes, __u64 now)
{
	struct edge k = {};
	k.source = source;
	k.destination = destination;
	k.port = port;
	k.protocol = protocol;
	k.direction = direction;
	k.verdict = v->reason ? VERDICT_DENY : v->audit ? VERDICT_AUDIT : VERDICT_ALLOW;
	k.reason = v->reason ? v->reason : v->audit;
	if (k.reason && remote)
		k.remote = *remote;
	struct edge_count *c = map_lookup(edges, &k);
	if (!c) {
		__u32 local = direction == DIRECTION_EGRESS ? source : destination;
		struct usage *u = map_lookup(usages, &local);
		if (u && now - u->rows_since > ROWS_WINDOW) {
			u->rows_since = now;
			u->rows = 0;
		}
		if (u ? u->rows >= MOST_ROWS : local != 0) {
			k.remote.w[0] = k.remote.w[1] = k.remote.w[2] = k.remote.w[3] = 0;
			k.port = 0;
			c = map_lookup(edges, &k);
		} else if (u) {
			__sync_fetch_and_add(&u->rows, 1);
		}
	}
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

static inline void record(__u32 source, __u32 destination, const struct address *remote, __u16 port,
			  __u8 protocol, __u8 direction, const struct verdict *v, __u32 bytes)
{
	record_at(source, destination, remote, port, protocol, direction, v, bytes, bpf_ktime_get_ns());
}
