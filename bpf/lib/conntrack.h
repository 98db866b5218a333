/* Remembering who opened a flow, so that replies pass and a changed policy re-judges.
 * `table` is the endpoint's own map. */
#pragma once

/* One packet as one side of a veth sees it. */
struct view {
	struct flow_id id;
	struct identity local;
	void *table;			/* the endpoint's flows */
	__u32 local_identity, remote_identity;
	__u32 outside;			/* the remote address isn't the platform's */
	__u32 direction;
	__u32 generation, ingress;	/* as in flow_state */
};

#define UDP_IDLE (60 * SECOND)
#define FRAGMENT_IDLE (30 * SECOND)

static inline int is_stale(const struct flow_state *s, __u32 protocol, __u64 now)
{
	return protocol != IPPROTO_TCP && now - s->last > UDP_IDLE;
}

static inline void remember(struct view *w, const struct verdict *v, __u8 initiator, __u64 now)
{
	struct flow_state s = {};
	s.last = now;
	s.epoch = w->local.epoch;
	s.remote = w->remote_identity;
	s.local = w->local_identity;
	s.generation = w->generation;
	s.ingress = w->ingress;
	s.rule = v->rule;
	s.initiator = initiator;
	s.audit = v->audit;
	s.flags = v->learned ? FLOW_LEARNED : 0;
	if (inner_update(w->table, &w->id, &s) < 0)
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
