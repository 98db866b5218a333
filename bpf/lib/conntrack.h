/* Remembering who opened a flow, so that replies pass and a changed policy re-judges. */
#pragma once

#define SECOND 1000000000ULL
#define UDP_IDLE (60 * SECOND)

static inline int is_stale(const struct flow_state *s, __u32 protocol, __u64 now)
{
	return protocol != IPPROTO_TCP && now - s->last > UDP_IDLE;
}

static inline void remember(struct flow_id *id, __u32 epoch, __u32 remote, __u32 rule, __u32 initiator)
{
	struct flow_state s = {};
	s.last = bpf_ktime_get_ns();
	s.epoch = epoch;
	s.remote = remote;
	s.rule = rule;
	s.initiator = initiator;
	if (map_update(conntrack, id, &s) < 0)
		count(COUNT_CONNTRACK_FULL);
}
