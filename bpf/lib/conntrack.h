/* Remembering who opened a flow, so that replies pass and a changed policy re-judges.
 * `table` is the endpoint's own map. */
#pragma once

#define UDP_IDLE (60 * SECOND)
#define FRAGMENT_IDLE (30 * SECOND)

static inline int is_stale(const struct flow_state *s, __u32 protocol, __u64 now)
{
	return protocol != IPPROTO_TCP && now - s->last > UDP_IDLE;
}

static inline void remember(void *table, struct flow_id *id, __u32 epoch, __u32 remote, const struct verdict *v,
			    __u8 initiator, __u64 now)
{
	struct flow_state s = {};
	s.last = now;
	s.epoch = epoch;
	s.remote = remote;
	s.rule = v->rule;
	s.initiator = initiator;
	s.audit = v->audit;
	s.flags = v->learned ? FLOW_LEARNED : 0;
	if (inner_update(table, id, &s) < 0)
		count(COUNT_CONNTRACK_FULL);
}

/* A first fragment's verdict goes for the rest of its packet. */
static inline void fragment_id(struct flow_id *id, const struct packet *p, __u32 direction)
{
	id->local = p->source;
	id->remote = p->destination;
	id->local_port = p->fragment_id >> 16;
	id->remote_port = p->fragment_id & 0xffff;
	id->protocol = FLOW_FRAGMENT | p->protocol | (direction ? FLOW_FRAGMENT_INGRESS : 0);
}

static inline void remember_fragment(void *table, const struct packet *p, __u32 direction)
{
	struct flow_id id = {};
	struct flow_state s = {};
	fragment_id(&id, p, direction);
	s.last = bpf_ktime_get_ns();
	if (inner_update(table, &id, &s) < 0)
		count(COUNT_FRAGMENTS_FULL);
}

static inline int fragment_passes(void *table, const struct packet *p, __u32 direction)
{
	struct flow_id id = {};
	fragment_id(&id, p, direction);
	struct flow_state *s = inner_lookup(table, &id);
	return s && bpf_ktime_get_ns() - s->last < FRAGMENT_IDLE;
}
